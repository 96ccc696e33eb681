// SPDX-License-Identifier: Apache-2.0
//
// Colours for numbers: a sequential scale for values of one sign and a
// diverging one for signed values, both with evenly falling lightness, so that
// they can be read without colour vision and in print.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

namespace limpid::render {

struct Rgb {
  uint8_t r = 0, g = 0, b = 0;
  friend bool operator==(const Rgb&, const Rgb&) = default;
};

inline constexpr Rgb kWhite{255, 255, 255};
inline constexpr Rgb kBlack{0, 0, 0};
// Of NaN and infinite values; a grey that no scale contains at its ends.
inline constexpr Rgb kNonFinite{150, 150, 150};

enum class Scale {
  kSequential,  // almost white, over orange, to dark red
  kDiverging,   // blue, almost white in the middle, vermilion
};

// The scale in 256 even steps from its low to its high end. Lives for ever.
const std::array<Rgb, 256>& ColorTable(Scale scale);

// How the numbers of one picture map to colours. 0 is always the pale colour:
// the pale end of the sequential scale, the middle of the diverging one.
struct ValueRange {
  Scale scale = Scale::kSequential;
  double low = 0;
  double high = 0;  // low == high: every finite value is pale

  // 0 (low) to 1 (high), clamped; the pale point for a constant map.
  double Position(double value) const;
  Rgb Color(double value) const;
};

// The range that shows `values`: sequential from 0 to the largest one if none
// is negative, else diverging and symmetric. NaN and infinite values do not
// count.
ValueRange RangeOf(std::span<const float> values);

// Black or white, whichever is easier to read on the colour.
Rgb TextColorOn(Rgb background);

// "#rrggbb".
std::string HexColor(Rgb color);

}  // namespace limpid::render
