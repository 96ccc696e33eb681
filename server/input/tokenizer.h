// SPDX-License-Identifier: Apache-2.0
//
// Text to token ids and back to spans of the text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid {

// A token of a text.
struct TokenSpan {
  int64_t id = 0;
  // Bytes [begin, end) of the text as it was given (before normalisation) that
  // the token covers. Spans are in order; where normalisation composes or
  // replaces characters, the tokens of what they became share their span.
  size_t begin = 0;
  size_t end = 0;
};

// Turns text into token ids. Immutable and thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads the tokenizer of a model folder, the first of these that is there:
  //   tokenizer.json              byte-level BPE
  //   tokenizer.model             SentencePiece BPE
  //   rwkv_vocab_v20230424.txt    RWKV World
  // A tokenizer.json that asks for something else than byte-level BPE is passed
  // over if another file is there: Gemma's, for one, is a copy of its
  // tokenizer.model. One that is damaged is not.
  //
  // A null pointer if the folder has none; DATA_LOSS, reason
  // TOKENIZER_DAMAGED, naming the file, if it can't be read; DATA_LOSS, reason
  // TOKENIZER_UNSUPPORTED, naming the part of it that is not known.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Open(
      const std::string& folder);

  // Ids of a text, which is taken verbatim, NUL bytes included: nothing is
  // added, special tokens inside it are recognised. INVALID_ARGUMENT, field
  // "input.text", if it is not UTF-8 (with the offset of the first bad byte)
  // or a character is not in the vocabulary, which has no token for unknown
  // ones. Time is near linear in the length, whatever the text.
  virtual absl::StatusOr<std::vector<TokenSpan>> Encode(
      absl::string_view text) const = 0;

  // Exact bytes of a token; empty for an id outside the vocabulary. Not UTF-8
  // by themselves in general. Special tokens have the bytes of their spelling.
  virtual std::string Piece(int64_t id) const = 0;
  virtual bool IsSpecial(int64_t id) const = 0;
  // Largest id plus one.
  virtual int64_t vocabulary_size() const = 0;
};

}  // namespace limpid
