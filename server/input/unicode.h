// SPDX-License-Identifier: Apache-2.0
//
// UTF-8 and the character classes that tokenizers are defined by. Classes
// follow Unicode 16, as the regular expressions of Python's tokenizers 0.22 do,
// even where the ICU at hand is older.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace limpid {

// Offset of the first byte that is not part of well-formed UTF-8; the text's
// size if there is none.
size_t FirstBadUtf8(absl::string_view text);

// The code point at `position`, which is moved behind it. The text must be
// well-formed and `position` before its end, at a character's first byte.
char32_t NextCodePoint(absl::string_view text, size_t& position);
// The code point before `position`, which must not be 0.
char32_t LastCodePoint(absl::string_view text, size_t position);

void AppendUtf8(char32_t code_point, std::string& out);

bool IsLetter(char32_t code_point);         // \p{L}
bool IsNumber(char32_t code_point);         // \p{N}
bool IsWhiteSpace(char32_t code_point);     // \s
bool IsWordCharacter(char32_t code_point);  // \w as in UTS 18

}  // namespace limpid
