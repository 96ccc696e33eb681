// SPDX-License-Identifier: Apache-2.0
//
// SentencePiece BPE as a tokenizer.model describes it: Gemma, Mistral and
// others. Written from the format and not linked from Debian's library, which
// carries an old protobuf whose symbols clash with those of gRPC's: a program
// with both does not start.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "server/input/tokenizer.h"

namespace limpid {

// Makes a tokenizer from the bytes of a tokenizer.model. `file` is for
// messages. Errors as Tokenizer::Open.
//
// Ids are those of Hugging Face's GemmaTokenizer and LlamaTokenizer (legacy)
// with add_special_tokens=False: control pieces (<bos>, <eos>, [INST]) and the
// unknown piece are recognised in a text, which SentencePiece alone would take
// for words; what lies between them is encoded by itself, each with its dummy
// prefix if the model has one. User-defined pieces are found by the model
// itself. Without byte fallback, a run of unknown characters is one unknown
// token. White space that the model leaves out belongs to the span of its
// neighbour; a text of nothing else has no tokens.
absl::StatusOr<std::shared_ptr<const Tokenizer>> MakeSentencePiece(
    absl::string_view model, const std::string& file);

}  // namespace limpid
