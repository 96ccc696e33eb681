// SPDX-License-Identifier: Apache-2.0
//
// A bitmap font for labels in pictures: ASCII and a few signs. Other characters
// show as a box.
#pragma once

#include "absl/strings/string_view.h"

namespace limpid::render {

inline constexpr int kGlyphWidth = 5;
inline constexpr int kGlyphHeight = 9;  // the last two rows are below the line
inline constexpr int kGlyphAdvance = 6;

// Whether the dot at column x and row y of a character is set.
bool GlyphDot(char32_t character, int x, int y);

}  // namespace limpid::render
