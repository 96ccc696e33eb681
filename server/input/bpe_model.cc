// SPDX-License-Identifier: Apache-2.0
#include "server/input/bpe_model.h"

#include <algorithm>
#include <utility>

namespace limpid {
namespace {

uint64_t Key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 |
         static_cast<uint32_t>(right);
}

}  // namespace

void BpeModel::AddMerge(int32_t left, int32_t right, int32_t merged) {
  merges_[Key(left, right)] = {num_merges_++, merged};
}

void BpeModel::AddWhole(std::string bytes, int32_t id) {
  whole_[std::move(bytes)] = id;
}

const BpeModel::Merge* BpeModel::Find(int32_t left, int32_t right) const {
  const auto found = merges_.find(Key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

bool BpeModel::Encode(absl::string_view word, Scratch& scratch,
                      std::vector<Symbol>& out, size_t& bad_byte) const {
  if (!whole_.empty()) {
    const auto found = whole_.find(std::string(word));
    if (found != whole_.end()) {
      out.push_back({found->second, word.size()});
      return true;
    }
  }
  auto& nodes = scratch.nodes_;
  auto& heap = scratch.heap_;
  nodes.clear();
  heap.clear();
  const auto size = static_cast<int32_t>(word.size());
  for (int32_t i = 0; i < size; ++i) {
    const int32_t id = byte_ids[static_cast<uint8_t>(word[i])];
    if (id < 0) {
      bad_byte = i;
      return false;
    }
    nodes.push_back({id, i - 1, i + 1 < size ? i + 1 : -1, 1});
  }

  // std heaps keep the largest in front.
  const auto after = [](const Scratch::Candidate& a,
                        const Scratch::Candidate& b) {
    return std::pair(a.rank, a.left) > std::pair(b.rank, b.left);
  };
  const auto candidate = [&](int32_t left) {
    const int32_t right = nodes[left].next;
    if (right < 0) return false;
    const Merge* merge = Find(nodes[left].id, nodes[right].id);
    if (merge == nullptr) return false;
    heap.push_back({merge->rank, left, merge->merged});
    return true;
  };
  for (int32_t i = 0; i < size; ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end(), after);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), after);
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    Scratch::Node& left = nodes[best.left];
    if (left.length == 0 || left.next < 0) continue;
    Scratch::Node& right = nodes[left.next];
    // The pair may have changed since it was noted.
    const Merge* merge = Find(left.id, right.id);
    if (merge == nullptr || merge->rank != best.rank) continue;
    left.id = best.merged;
    left.length += right.length;
    left.next = right.next;
    right.length = 0;
    if (left.next >= 0) nodes[left.next].previous = best.left;
    if (candidate(best.left)) std::push_heap(heap.begin(), heap.end(), after);
    if (left.previous >= 0 && candidate(left.previous)) {
      std::push_heap(heap.begin(), heap.end(), after);
    }
  }
  size_t end = 0;
  for (int32_t i = 0; i >= 0 && i < size; i = nodes[i].next) {
    end += nodes[i].length;
    out.push_back({nodes[i].id, end});
  }
  return true;
}

}  // namespace limpid
