// SPDX-License-Identifier: Apache-2.0
//
// The parts of a tokenizer.json as plain data.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"
#include "server/input/added_tokens.h"
#include "server/input/pretokenizer.h"

namespace limpid {

struct TokenizerSpec {
  bool nfc = false;
  Pretokenizer::Options pretokenizer;
  std::vector<AddedToken> added_tokens;
  // Tokens in the spelling of the file, where every byte is a printable
  // character. Ids are below kMaxTokens.
  std::vector<std::pair<std::string, int32_t>> vocabulary;
  // In order of rank.
  std::vector<std::pair<std::string, std::string>> merges;
  // Words in the vocabulary are one token, whatever the merges.
  bool ignore_merges = false;
  // A token for unknown characters is declared: usable only where no byte is
  // unknown.
  bool has_unknown_token = false;
};

inline constexpr int64_t kMaxTokens = int64_t{1} << 22;

// Errors as Tokenizer::Open. What the file may hold is what byte-level BPE
// needs; whatever else would change ids is TOKENIZER_UNSUPPORTED.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view json,
                                                 const std::string& file);

}  // namespace limpid
