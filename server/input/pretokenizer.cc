// SPDX-License-Identifier: Apache-2.0
#include "server/input/pretokenizer.h"

#include <utility>

#include "server/input/unicode.h"

namespace limpid {
namespace {

using Ranges = std::vector<std::pair<size_t, size_t>>;

enum class Class { kLetter, kNumber, kSpace, kOther };

Class ClassOf(char32_t c) {
  if (c < 0x80) {
    const auto lower = c | 0x20;
    if (lower >= 'a' && lower <= 'z') return Class::kLetter;
    if (c >= '0' && c <= '9') return Class::kNumber;
    return c == ' ' || (c >= '\t' && c <= '\r') ? Class::kSpace : Class::kOther;
  }
  if (IsLetter(c)) return Class::kLetter;
  if (IsNumber(c)) return Class::kNumber;
  return IsWhiteSpace(c) ? Class::kSpace : Class::kOther;
}

// The class of the character at `position`, which is moved behind it.
Class NextClass(absl::string_view text, size_t& position) {
  return ClassOf(NextCodePoint(text, position));
}

// End of the run of one class that goes on at `position`. `last` is set to the
// first byte of its last character.
size_t EndOfRun(absl::string_view text, size_t position, Class wanted,
                size_t& last) {
  for (size_t next = position; next < text.size();) {
    const size_t start = next;
    if (NextClass(text, next) != wanted) return start;
    last = start;
    position = next;
  }
  return position;
}

// Length of a contraction at `position`, 0 if there is none.
size_t Contraction(absl::string_view text, size_t position) {
  if (text[position] != '\'') return 0;
  const absl::string_view two = text.substr(position + 1, 2);
  if (two == "re" || two == "ve" || two == "ll") return 3;
  const absl::string_view one = two.substr(0, 1);
  return one == "s" || one == "t" || one == "m" || one == "d" ? 2 : 0;
}

// End of the word of GPT-2 that begins at `begin`. By hand, it is
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// in linear time and without the limits of a matcher: every character is looked
// at twice at most.
size_t EndOfWord(absl::string_view text, size_t begin) {
  if (const size_t length = Contraction(text, begin); length > 0) {
    return begin + length;
  }
  size_t next = begin;
  size_t last = begin;
  Class kind = NextClass(text, next);
  if (text[begin] == ' ' && next < text.size()) {
    // The space belongs to what follows, unless that is white space.
    size_t after = next;
    kind = NextClass(text, after);
    if (kind == Class::kSpace) last = next;
    next = after;
  }
  const size_t end = EndOfRun(text, next, kind, last);
  // Of several white spaces before a word, the last one is left to it.
  if (kind == Class::kSpace && end < text.size() && last > begin) return last;
  return end;
}

// Matches of one step.
absl::StatusOr<Ranges> Matches(const SplitStep& step, absl::string_view text) {
  if (step.kind == SplitStep::Kind::kRegex) {
    return step.regex.front().FindAll(text);
  }
  Ranges out;
  if (step.kind == SplitStep::Kind::kLiteral) {
    for (size_t at = 0; !step.literal.empty();) {
      at = text.find(step.literal, at);
      if (at == absl::string_view::npos) break;
      out.emplace_back(at, at + step.literal.size());
      at = out.back().second;
    }
    return out;
  }
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    if (IsNumber(NextCodePoint(text, end))) {
      if (!step.individual_digits && !out.empty() &&
          out.back().second == begin) {
        out.back().second = end;
      } else {
        out.emplace_back(begin, end);
      }
    }
    begin = end;
  }
  return out;
}

// Cuts `part` of the text at the matches of one step.
absl::Status Apply(const SplitStep& step, absl::string_view text,
                   std::pair<size_t, size_t> part, Ranges& out) {
  const absl::string_view piece =
      text.substr(part.first, part.second - part.first);
  LIMPID_ASSIGN_OR_RETURN(Ranges matches, Matches(step, piece));
  size_t open = 0;
  const auto add = [&](size_t begin, size_t end, bool is_match) {
    if (begin == end || (step.remove && is_match != step.invert)) return;
    out.emplace_back(part.first + begin, part.first + end);
  };
  for (const auto& [begin, end] : matches) {
    add(open, begin, false);
    add(begin, end, true);
    open = end;
  }
  add(open, piece.size(), false);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Word>> Pretokenizer::Split(
    absl::string_view text) const {
  Ranges parts;
  if (!text.empty()) parts.emplace_back(0, text.size());
  for (const SplitStep& step : options_.steps) {
    Ranges next;
    for (const auto& part : parts) {
      LIMPID_RETURN_IF_ERROR(Apply(step, text, part, next));
    }
    parts = std::move(next);
  }
  std::vector<Word> words;
  std::string spaced;
  for (const auto& [part_begin, part_end] : parts) {
    absl::string_view part = text.substr(part_begin, part_end - part_begin);
    const size_t shift = options_.add_prefix_space && part[0] != ' ' ? 1 : 0;
    if (shift > 0) {
      spaced.assign(1, ' ');
      spaced.append(part.data(), part.size());
      part = spaced;
    }
    for (size_t begin = 0; begin < part.size();) {
      const size_t end =
          options_.use_regex ? EndOfWord(part, begin) : part.size();
      words.push_back({part_begin + (begin > 0 ? begin - shift : 0),
                       part_begin + end - shift, begin == 0 && shift > 0});
      begin = end;
    }
  }
  return words;
}

}  // namespace limpid
