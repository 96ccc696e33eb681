// SPDX-License-Identifier: Apache-2.0
#include "server/input/byte_trie.h"

#include <algorithm>

namespace limpid {

ByteTrie::ByteTrie(std::vector<std::pair<absl::string_view, int32_t>> entries) {
  std::sort(entries.begin(), entries.end());
  // The keys that begin with a node's bytes; nodes are made in order of depth,
  // so that brothers stand together.
  struct Keys {
    size_t begin, end, depth;
  };
  std::vector<Keys> keys = {{0, entries.size(), 0}};
  for (size_t node = 0; node < nodes_.size(); ++node) {
    auto [begin, end, depth] = keys[node];
    if (begin < end && entries[begin].first.size() == depth) {
      nodes_[node].value = entries[begin++].second;
    }
    nodes_[node].first_child = static_cast<uint32_t>(nodes_.size());
    while (begin < end) {
      const char label = entries[begin].first[depth];
      size_t next = begin;
      while (next < end && entries[next].first[depth] == label) ++next;
      nodes_.emplace_back().label = static_cast<uint8_t>(label);
      ++nodes_[node].num_children;
      keys.push_back({begin, next, depth + 1});
      begin = next;
    }
  }
}

ByteTrie::Match ByteTrie::Longest(absl::string_view text,
                                  size_t position) const {
  Match match;
  const Node* node = &nodes_[0];
  for (size_t i = position; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const Node* const first = nodes_.data() + node->first_child;
    const Node* const last = first + node->num_children;
    // A node has every label or few.
    node = node->num_children == 256
               ? first + byte
               : std::lower_bound(first, last, byte,
                                  [](const Node& child, uint8_t label) {
                                    return child.label < label;
                                  });
    if (node == last || node->label != byte) break;
    if (node->value >= 0) match = {node->value, i + 1 - position};
  }
  return match;
}

}  // namespace limpid
