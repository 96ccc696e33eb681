// SPDX-License-Identifier: Apache-2.0
//
// Bytes of tokens and callers as valid UTF-8, which proto3 strings must be.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace limpid {

// U+FFFD in place of every byte that is not part of a well-formed character.
std::string SafeText(absl::string_view bytes);

// Offset of the first byte that is not part of a well-formed character, or
// npos.
size_t FindInvalidUtf8(absl::string_view bytes);

// The longest prefix of at most `limit` bytes that ends between characters.
std::string CutUtf8(absl::string_view text, size_t limit);

}  // namespace limpid
