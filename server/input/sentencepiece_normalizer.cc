// SPDX-License-Identifier: Apache-2.0
#include "server/input/sentencepiece_normalizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "server/input/unicode.h"

namespace limpid {
namespace {

constexpr absl::string_view kVisibleSpace = "\u2581";
// Positions in the normal form are kept in 31 bits.
constexpr size_t kMaxNormalBytes = (size_t{1} << 31) - 1;
// Real maps have a few dozen at most. The limits keep time and memory linear in
// the text's length.
constexpr size_t kMaxKeyBytes = 1024;
constexpr size_t kMaxReplacementBytes = 1024;

uint32_t Unit(absl::string_view bytes) {
  uint32_t unit = 0;
  for (size_t i = 0; i < 4; ++i) {
    unit |= uint32_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
  }
  return unit;
}

// The fields of a unit of the double array. A unit is a value, or a node.
constexpr uint32_t kIsValue = 1u << 31;
uint32_t Value(uint32_t unit) { return unit & ~kIsValue; }
bool HasValue(uint32_t unit) { return (unit >> 8 & 1) != 0; }
// Never equal to a byte for a value.
uint32_t Label(uint32_t unit) { return unit & (kIsValue | 0xFF); }
// A node's children are at its own place XOR this XOR their label; its value
// is where a child with the label 0 would be.
uint32_t Offset(uint32_t unit) {
  return unit >> 10 << ((unit & 1u << 9) != 0 ? 8 : 0);
}

bool IsContinuation(char byte) { return (byte & 0xC0) == 0x80; }

void Append(absl::string_view bytes, size_t begin, size_t end,
            NormalizedText& out) {
  out.text.append(bytes.data(), bytes.size());
  out.begin.insert(out.begin.end(), bytes.size(), begin);
  out.end.insert(out.end.end(), bytes.size(), end);
}

// Lets what the last character became stand for the bytes up to `end` as well.
void ExtendLast(size_t end, NormalizedText& out) {
  if (out.text.empty()) return;
  const uint32_t last_begin = out.begin.back(), last_end = out.end.back();
  for (size_t i = out.end.size();
       i > 0 && out.begin[i - 1] == last_begin && out.end[i - 1] == last_end;
       --i) {
    out.end[i - 1] = static_cast<uint32_t>(end);
  }
}

}  // namespace

absl::StatusOr<CharacterMap> CharacterMap::Create(absl::string_view map) {
  CharacterMap out;
  if (map.empty()) return out;
  const auto wrong = [](absl::string_view what) {
    return absl::InvalidArgumentError(what);
  };
  const size_t size = map.size() < 4 ? 0 : Unit(map);
  if (size == 0 || size % 4 != 0 || size > map.size() - 4) {
    return wrong("its size makes no sense");
  }
  for (size_t i = 0; i < size; i += 4) {
    out.units_.push_back(Unit(map.substr(4 + i)));
  }
  out.replacements_ = std::string(map.substr(4 + size));
  const std::string& replacements = out.replacements_;
  if (replacements.empty() || replacements.back() != '\0' ||
      FirstBadUtf8(replacements) < replacements.size()) {
    return wrong("its replacements are not UTF-8, or the last one has no end");
  }
  for (size_t begin = 0; begin < replacements.size();) {
    const size_t end = replacements.find('\0', begin);
    if (end - begin > kMaxReplacementBytes) {
      return wrong("a replacement is too long");
    }
    begin = end + 1;
  }
  for (uint32_t i = 0; i < out.units_.size(); ++i) {
    const uint32_t unit = out.units_[i];
    if ((unit & kIsValue) != 0) {
      if (Value(unit) >= replacements.size() ||
          IsContinuation(replacements[Value(unit)])) {
        return wrong("a value points at no replacement");
      }
      continue;
    }
    const uint32_t at = i ^ Offset(unit);
    if (HasValue(unit) &&
        (at >= out.units_.size() || (out.units_[at] & kIsValue) == 0)) {
      return wrong("a key has no value");
    }
  }
  return out;
}

CharacterMap::Match CharacterMap::Longest(absl::string_view text,
                                          size_t position) const {
  Match match;
  if (units_.empty()) return match;
  const size_t end = std::min(text.size(), position + kMaxKeyBytes);
  uint32_t node = 0;
  for (size_t i = position; i < end; ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const uint32_t child = node ^ Offset(units_[node]) ^ byte;
    if (child >= units_.size() || Label(units_[child]) != byte) break;
    node = child;
    const uint32_t unit = units_[node];
    if (HasValue(unit)) {
      // In range, as Create saw to it.
      const uint32_t value = Value(units_[node ^ Offset(unit)]);
      match = {replacements_.c_str() + value, i + 1 - position};
    }
  }
  return match;
}

SentencePieceNormalizer::SentencePieceNormalizer(
    const SentencePieceModel& model, CharacterMap map,
    const ByteTrie* user_symbols)
    : map_(std::move(map)),
      user_symbols_(*user_symbols),
      add_dummy_prefix_(model.add_dummy_prefix),
      remove_extra_whitespaces_(model.remove_extra_whitespaces),
      treat_whitespace_as_suffix_(model.treat_whitespace_as_suffix),
      space_(model.escape_whitespaces ? kVisibleSpace : " ") {}

CharacterMap::Match SentencePieceNormalizer::Next(absl::string_view text,
                                                  size_t position) const {
  if (const ByteTrie::Match symbol = user_symbols_.Longest(text, position);
      symbol.length > 0) {
    return {text.substr(position, symbol.length), symbol.length};
  }
  if (const CharacterMap::Match match = map_.Longest(text, position);
      match.length > 0) {
    return match;
  }
  size_t end = position + 1;
  while (end < text.size() && IsContinuation(text[end])) ++end;
  return {text.substr(position, end - position), end - position};
}

bool SentencePieceNormalizer::Normalize(absl::string_view text,
                                        NormalizedText& out) const {
  out = {};
  out.text.reserve(text.size());
  out.begin.reserve(text.size());
  out.end.reserve(text.size());
  size_t at = 0;
  while (remove_extra_whitespaces_ && at < text.size()) {
    const CharacterMap::Match next = Next(text, at);
    if (next.replacement != " ") break;
    at += next.length;
  }
  if (at == text.size()) return true;
  if (add_dummy_prefix_ && !treat_whitespace_as_suffix_) {
    Append(space_, 0, at, out);
  }
  bool skips_spaces = remove_extra_whitespaces_;
  while (at < text.size()) {
    const CharacterMap::Match next = Next(text, at);
    absl::string_view rest = next.replacement;
    while (skips_spaces && absl::ConsumePrefix(&rest, " ")) {
    }
    const size_t begin = out.text.empty() ? 0 : at;
    at += next.length;
    if (rest.empty()) {
      ExtendLast(at, out);
      continue;
    }
    skips_spaces = remove_extra_whitespaces_ && rest.back() == ' ';
    for (const char& byte : rest) {
      Append(byte == ' ' ? space_ : absl::string_view(&byte, 1), begin, at,
             out);
    }
    if (out.text.size() > kMaxNormalBytes) return false;
  }
  if (remove_extra_whitespaces_) {
    size_t size = out.text.size();
    while (
        absl::EndsWith(absl::string_view(out.text).substr(0, size), space_)) {
      size -= space_.size();
    }
    if (size < out.text.size()) {
      out.text.resize(size);
      out.begin.resize(size);
      out.end.resize(size);
      ExtendLast(text.size(), out);
    }
  }
  if (add_dummy_prefix_ && treat_whitespace_as_suffix_) {
    Append(space_, out.text.empty() ? 0 : text.size(), text.size(), out);
  }
  return true;
}

}  // namespace limpid
