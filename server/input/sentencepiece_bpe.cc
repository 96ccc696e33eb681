// SPDX-License-Identifier: Apache-2.0
#include "server/input/sentencepiece_bpe.h"

#include <algorithm>
#include <utility>

namespace limpid {

using Type = SentencePieceModel::Type;

SentencePieceBpe::SentencePieceBpe(const SentencePieceModel* model,
                                   const ByteTrie* user_symbols)
    : model_(*model), user_symbols_(*user_symbols) {
  for (size_t id = 0; id < model_.pieces.size(); ++id) {
    const std::string& piece = model_.pieces[id].text;
    longest_ = std::max(longest_, piece.size());
    ids_.emplace(piece, static_cast<int32_t>(id));
  }
}

// The encoding of one text.
class SentencePieceBpe::Run {
 public:
  Run(const SentencePieceBpe& bpe, absl::string_view text)
      : bpe_(bpe), text_(text) {}

  std::vector<Symbol> Encode() &&;

 private:
  // Characters joined so far, in a list linked by indices; size 0 once it was
  // joined with its left neighbour.
  struct Node {
    uint32_t begin;
    uint32_t size;
    int32_t previous;
    int32_t next;
    bool is_frozen;
  };
  struct Candidate {
    float score;
    int32_t left;
    uint32_t size;
    bool operator<(const Candidate& other) const {
      return std::pair(score, -left) < std::pair(other.score, -other.left);
    }
  };

  void Split();
  // Notes that a node and its right neighbour make up a piece, if they do.
  void Consider(int32_t left);
  void Join();
  // Appends a node's piece, or what it was made of if that is unused.
  void Emit(const Node& node, std::vector<Symbol>& out);
  // The piece that is written so; the unknown one if there is none.
  int32_t Find(uint32_t begin, uint32_t size) const;

  const SentencePieceBpe& bpe_;
  const absl::string_view text_;
  std::vector<Node> nodes_;
  std::vector<Candidate> heap_;
  // For an unused piece: the size of the left one of the two that made it when
  // it was last considered.
  absl::flat_hash_map<int32_t, uint32_t> left_sizes_;
  std::vector<std::pair<uint32_t, uint32_t>> parts_;  // Emit's begins, sizes.
};

int32_t SentencePieceBpe::Run::Find(uint32_t begin, uint32_t size) const {
  if (size > bpe_.longest_) return bpe_.model_.unknown_id;
  const auto found = bpe_.ids_.find(text_.substr(begin, size));
  return found == bpe_.ids_.end() ? bpe_.model_.unknown_id : found->second;
}

void SentencePieceBpe::Run::Split() {
  for (size_t begin = 0; begin < text_.size();) {
    const ByteTrie::Match symbol = bpe_.user_symbols_.Longest(text_, begin);
    size_t end = begin + std::max<size_t>(symbol.length, 1);
    while (symbol.length == 0 && end < text_.size() &&
           (text_[end] & 0xC0) == 0x80) {
      ++end;
    }
    const auto index = static_cast<int32_t>(nodes_.size());
    nodes_.push_back({static_cast<uint32_t>(begin),
                      static_cast<uint32_t>(end - begin), index - 1,
                      end < text_.size() ? index + 1 : -1, symbol.length > 0});
    begin = end;
  }
}

void SentencePieceBpe::Run::Consider(int32_t left) {
  if (left < 0 || nodes_[left].next < 0) return;
  const Node& first = nodes_[left];
  const Node& second = nodes_[first.next];
  if (first.is_frozen || second.is_frozen) return;
  const uint32_t size = first.size + second.size;
  const int32_t id = Find(first.begin, size);
  const SentencePieceModel::Piece& piece = bpe_.model_.pieces[id];
  if (piece.type != Type::kNormal && piece.type != Type::kUserDefined &&
      piece.type != Type::kUnused) {
    return;
  }
  heap_.push_back({piece.score, left, size});
  std::push_heap(heap_.begin(), heap_.end());
  if (piece.type == Type::kUnused) left_sizes_[id] = first.size;
}

void SentencePieceBpe::Run::Join() {
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Candidate best = heap_.back();
    heap_.pop_back();
    Node& left = nodes_[best.left];
    if (left.size == 0 || left.next < 0) continue;
    Node& right = nodes_[left.next];
    // Nodes only grow: the same size means that neither has changed.
    if (left.size + right.size != best.size) continue;
    left.size = best.size;
    left.next = right.next;
    right.size = 0;
    if (left.next >= 0) nodes_[left.next].previous = best.left;
    Consider(left.previous);
    Consider(best.left);
  }
}

void SentencePieceBpe::Run::Emit(const Node& node, std::vector<Symbol>& out) {
  parts_.emplace_back(node.begin, node.size);
  while (!parts_.empty()) {
    const auto [begin, size] = parts_.back();
    parts_.pop_back();
    const int32_t id = Find(begin, size);
    if (bpe_.model_.pieces[id].type == Type::kUnused) {
      const auto left = left_sizes_.find(id);
      if (left != left_sizes_.end()) {
        parts_.emplace_back(begin + left->second, size - left->second);
        parts_.emplace_back(begin, left->second);
        continue;
      }
    }
    out.push_back({id, begin, begin + size});
  }
}

std::vector<SentencePieceBpe::Symbol> SentencePieceBpe::Run::Encode() && {
  Split();
  std::vector<Symbol> out;
  if (nodes_.empty()) return out;
  for (size_t i = 0; i < nodes_.size(); ++i) Consider(static_cast<int32_t>(i));
  Join();
  for (int32_t i = 0; i >= 0; i = nodes_[i].next) Emit(nodes_[i], out);
  return out;
}

std::vector<SentencePieceBpe::Symbol> SentencePieceBpe::Encode(
    absl::string_view text) const {
  return Run(*this, text).Encode();
}

}  // namespace limpid
