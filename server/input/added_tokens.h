// SPDX-License-Identifier: Apache-2.0
//
// Tokens that are found in a text as they are written, before anything else
// cuts it: special tokens and the like.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/strings/string_view.h"

namespace limpid {

// An entry of "added_tokens" in tokenizer.json.
struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool special = false;
  // Looked for after normalisation instead of before it.
  bool normalized = false;
  // Takes the white space on its left or right with it.
  bool lstrip = false;
  bool rstrip = false;
  // Only found where no word character touches it.
  bool single_word = false;
};

// A part of a text: a token or what lies between two.
struct AddedPiece {
  const AddedToken* token = nullptr;  // Null for text between tokens.
  size_t begin = 0;
  size_t end = 0;
};

// Finds added tokens: the leftmost first, of those the longest. Immutable and
// thread-safe once the last token was added.
class AddedTokenFinder {
 public:
  // Finds `token` where `pattern` stands, which must not be empty. Of equal
  // patterns the first one added counts. `token` must outlive this object.
  void Add(absl::string_view pattern, const AddedToken* token);
  bool empty() const { return nodes_.size() == 1; }

  // Cuts the text; pieces of text are never empty. A token that takes white
  // space on its right may overlap with its successor, as in Python's
  // tokenizers. Time: the text's length times the longest token's at most.
  std::vector<AddedPiece> Split(absl::string_view text) const;

 private:
  // Longest token that starts at `position`; null if none.
  const AddedToken* Match(absl::string_view text, size_t position,
                          size_t& end) const;

  // A trie over bytes; children are in one table under (node, byte).
  struct Node {
    const AddedToken* token = nullptr;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::unordered_map<uint64_t, uint32_t> children_;
  std::bitset<256> first_bytes_;
};

}  // namespace limpid
