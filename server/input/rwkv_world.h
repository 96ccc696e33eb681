// SPDX-License-Identifier: Apache-2.0
//
// The tokenizer of RWKV "World" models: at every place the longest token that
// fits, over bytes.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "server/input/tokenizer.h"

namespace limpid {

// Makes a tokenizer from the text of an rwkv_vocab_v20230424.txt: a line is an
// id, a Python string or bytes literal, and the number of its bytes. `file` is
// for messages, which name the line. Errors as Tokenizer::Open.
//
// The id 0 ends a text and has no line in the published file, so that Python's
// original never gives it for a text. It is the special token, with the
// spelling that published model folders give it and recognise in a text:
// "<|rwkv_tokenizer_end_of_text|>". A line for 0 sets another one.
absl::StatusOr<std::shared_ptr<const Tokenizer>> MakeRwkvWorld(
    absl::string_view vocabulary, const std::string& file);

}  // namespace limpid
