// SPDX-License-Identifier: Apache-2.0
//
// Byte pair encoding of one word.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace limpid {

// Merges pairs of tokens, the pair of the lowest rank first and the leftmost of
// equals, until no pair has a rank. Immutable and thread-safe once made.
class BpeModel {
 public:
  // A token and where it ends in the word.
  struct Symbol {
    int64_t id;
    size_t end;
  };
  // Memory that calls of Encode share, so that words cost no allocation.
  class Scratch;

  // Token of each byte; -1 for a byte that has none.
  std::array<int32_t, 256> byte_ids;
  // A later merge of the same pair replaces the earlier one.
  void AddMerge(int32_t left, int32_t right, int32_t merged);
  // Words that are one token whatever the merges say.
  void AddWhole(std::string bytes, int32_t id);

  // Appends the tokens of a word. False, with the first byte at fault, if a
  // byte has no token. O(n log n) in the word's length.
  bool Encode(absl::string_view word, Scratch& scratch,
              std::vector<Symbol>& out, size_t& bad_byte) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t merged;
  };
  const Merge* Find(int32_t left, int32_t right) const;

  absl::flat_hash_map<uint64_t, Merge> merges_;
  absl::flat_hash_map<std::string, int32_t> whole_;
  int32_t num_merges_ = 0;
};

class BpeModel::Scratch {
 private:
  friend class BpeModel;
  // A run of merged bytes in a list linked by indices; length 0 once it was
  // merged into its left neighbour.
  struct Node {
    int32_t id;
    int32_t previous;
    int32_t next;
    uint32_t length;
  };
  struct Candidate {
    int32_t rank;
    int32_t left;
    int32_t merged;
  };
  std::vector<Node> nodes_;
  std::vector<Candidate> heap_;
};

}  // namespace limpid
