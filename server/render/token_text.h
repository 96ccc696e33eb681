// SPDX-License-Identifier: Apache-2.0
//
// Text of tokens as people may see it: tokens come from whoever wrote the
// input or the vocabulary, so nothing in them may act on a terminal or a page.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace limpid::render {

// The code points of UTF-8 text; U+FFFD for every byte that is not part of a
// valid sequence.
std::vector<char32_t> DecodeUtf8(absl::string_view text);
// Appends one code point.
void AppendUtf8(char32_t code_point, std::string& out);

// Valid UTF-8 without control characters and without marks that reorder or hide
// text: a line feed becomes U+21B5, a tab U+21E5, all others U+FFFD.
std::string SafeText(absl::string_view text);

}  // namespace limpid::render
