// SPDX-License-Identifier: Apache-2.0
//
// Byte-level BPE as tokenizer.json describes it for the GPT-NeoX family.
#pragma once

#include <memory>

#include "absl/strings/string_view.h"
#include "server/input/tokenizer.h"

namespace limpid {

// Makes a tokenizer from the text of a tokenizer.json. `file` is for messages.
// Errors as Tokenizer::Open.
absl::StatusOr<std::shared_ptr<const Tokenizer>> MakeByteBpe(
    absl::string_view json, const std::string& file);

}  // namespace limpid
