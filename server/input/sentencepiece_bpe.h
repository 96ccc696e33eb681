// SPDX-License-Identifier: Apache-2.0
//
// Byte pair encoding as SentencePiece does it: over characters, by the scores
// of whole pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "server/input/byte_trie.h"
#include "server/input/sentencepiece_model.h"

namespace limpid {

// Joins neighbours that make up a piece, the highest score first and the
// leftmost of equals, until no neighbours do. Immutable and thread-safe.
class SentencePieceBpe {
 public:
  // A piece of the text, or a character that no piece is, with the unknown id.
  struct Symbol {
    int32_t id;
    uint32_t begin, end;
  };

  // `user_symbols` are the pieces that are found first and not joined. Both
  // must outlive this object.
  SentencePieceBpe(const SentencePieceModel* model,
                   const ByteTrie* user_symbols);

  // `text` is normalised and shorter than 2^31 bytes. O(n log n).
  std::vector<Symbol> Encode(absl::string_view text) const;

 private:
  class Run;

  const SentencePieceModel& model_;
  const ByteTrie& user_symbols_;
  size_t longest_ = 0;
  absl::flat_hash_map<absl::string_view, int32_t> ids_;
};

}  // namespace limpid
