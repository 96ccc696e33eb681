// SPDX-License-Identifier: Apache-2.0
//
// The errors that all tokenizers share.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid {

// DATA_LOSS, reason TOKENIZER_DAMAGED: `file` can't be read.
absl::Status TokenizerDamaged(const std::string& file, absl::string_view what);

// DATA_LOSS, reason TOKENIZER_UNSUPPORTED: `part` of `file` asks for something
// that would be ignored.
absl::Status TokenizerUnsupported(const std::string& file,
                                  const std::string& part,
                                  absl::string_view what);

// INVALID_ARGUMENT, reason TEXT_INVALID: the text's byte `offset` is at fault.
absl::Status TextInvalid(size_t offset, absl::string_view what);

// Refuses a text that is not UTF-8, or longer than tokenizers count.
absl::Status CheckText(absl::string_view text);

}  // namespace limpid
