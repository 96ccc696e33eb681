// SPDX-License-Identifier: Apache-2.0
//
// Finds the longest of many keys at a place in a text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace limpid {

// A trie over bytes, 12 bytes of memory per byte of a key at most. Immutable
// and thread-safe.
class ByteTrie {
 public:
  struct Match {
    int32_t value = -1;
    size_t length = 0;  // 0 if no key matches.
  };

  ByteTrie() = default;
  // Keys must differ and not be empty; values must not be negative.
  explicit ByteTrie(std::vector<std::pair<absl::string_view, int32_t>> entries);

  // The longest key at `position`. Time: the longest key's length at most.
  Match Longest(absl::string_view text, size_t position) const;

 private:
  struct Node {
    uint32_t first_child = 0;  // Children stand together, by label.
    int32_t value = -1;
    uint16_t num_children = 0;
    uint8_t label = 0;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
};

}  // namespace limpid
