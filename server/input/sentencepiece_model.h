// SPDX-License-Identifier: Apache-2.0
//
// The parts of a SentencePiece tokenizer.model as plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid {

struct SentencePieceModel {
  // Values as in the file.
  enum class Type : uint64_t {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    // Not in the output, but a step towards longer pieces.
    kUnused = 5,
    kByte = 6,
  };
  struct Piece {
    std::string text;  // UTF-8, not empty, at most 1,024 bytes.
    float score = 0;   // Not NaN.
    Type type = Type::kNormal;
  };

  // By id.
  std::vector<Piece> pieces;
  int32_t unknown_id = -1;
  // Characters that no piece has become bytes instead of the unknown piece.
  bool byte_fallback = false;
  // By byte; complete if byte_fallback.
  std::vector<int32_t> byte_ids = std::vector<int32_t>(256, -1);

  // How a text is normalised; see SentencePieceNormalizer.
  std::string character_map;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool treat_whitespace_as_suffix = false;
};

// Errors as Tokenizer::Open. Models that are not BPE are TOKENIZER_UNSUPPORTED.
absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(
    absl::string_view model, const std::string& file);

}  // namespace limpid
