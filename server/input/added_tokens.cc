// SPDX-License-Identifier: Apache-2.0
#include "server/input/added_tokens.h"

#include <algorithm>

#include "server/input/unicode.h"

namespace limpid {
namespace {

uint64_t Key(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<uint8_t>(byte);
}

bool TouchesWord(absl::string_view text, size_t begin, size_t end) {
  if (begin > 0 && IsWordCharacter(LastCodePoint(text, begin))) return true;
  return end < text.size() && IsWordCharacter(NextCodePoint(text, end));
}

// Where the white space that ends at `end` begins, but not before `limit`.
size_t SpaceBefore(absl::string_view text, size_t end, size_t limit) {
  while (end > limit && IsWhiteSpace(LastCodePoint(text, end))) {
    do {
      --end;
    } while ((text[end] & 0xC0) == 0x80);
  }
  return end;
}

// Where the white space that begins at `begin` ends.
size_t SpaceAfter(absl::string_view text, size_t begin) {
  for (size_t next = begin; next < text.size(); begin = next) {
    if (!IsWhiteSpace(NextCodePoint(text, next))) break;
  }
  return begin;
}

}  // namespace

void AddedTokenFinder::Add(absl::string_view pattern, const AddedToken* token) {
  if (pattern.empty()) return;
  first_bytes_.set(static_cast<uint8_t>(pattern[0]));
  uint32_t node = 0;
  for (const char byte : pattern) {
    const auto [child, is_new] = children_.emplace(
        Key(node, byte), static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    node = child->second;
  }
  if (nodes_[node].token == nullptr) nodes_[node].token = token;
}

const AddedToken* AddedTokenFinder::Match(absl::string_view text,
                                          size_t position, size_t& end) const {
  const AddedToken* found = nullptr;
  uint32_t node = 0;
  for (size_t i = position; i < text.size(); ++i) {
    const auto child = children_.find(Key(node, text[i]));
    if (child == children_.end()) break;
    node = child->second;
    if (nodes_[node].token != nullptr) {
      found = nodes_[node].token;
      end = i + 1;
    }
  }
  return found;
}

std::vector<AddedPiece> AddedTokenFinder::Split(absl::string_view text) const {
  std::vector<AddedPiece> out;
  // Where the text that belongs to no piece yet begins. May lie before a
  // token's end or behind it, so it is not where the search goes on.
  size_t open = 0;
  for (size_t i = 0; i < text.size();) {
    size_t end = 0;
    const AddedToken* token = nullptr;
    if (first_bytes_[static_cast<uint8_t>(text[i])]) {
      token = Match(text, i, end);
    }
    if (token == nullptr) {
      ++i;
      continue;
    }
    size_t begin = i;
    // A refused match is not searched for shorter ones inside it.
    i = end;
    if (token->single_word && TouchesWord(text, begin, end)) continue;
    if (token->lstrip) {
      begin = std::max(SpaceBefore(text, begin, 0), open);
    }
    if (token->rstrip) end = SpaceAfter(text, end);
    if (open < begin) out.push_back({nullptr, open, begin});
    out.push_back({token, begin, end});
    open = end;
  }
  if (open < text.size()) out.push_back({nullptr, open, text.size()});
  return out;
}

}  // namespace limpid
