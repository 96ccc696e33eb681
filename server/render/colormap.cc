// SPDX-License-Identifier: Apache-2.0
#include "server/render/colormap.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_format.h"

namespace limpid::render {
namespace {

struct LinearRgb {
  double r, g, b;
  bool in_gamut() const {
    const auto inside = [](double x) { return x >= 0 && x <= 1; };
    return inside(r) && inside(g) && inside(b);
  }
};

// Oklab with cylindrical coordinates; matrices from Björn Ottosson, "A
// perceptual color space for image processing" (2020), in the public domain.
LinearRgb FromOklch(double lightness, double chroma, double hue_degrees) {
  const double hue = hue_degrees * std::numbers::pi / 180;
  const double a = chroma * std::cos(hue), b = chroma * std::sin(hue);
  const double l = std::pow(lightness + 0.3963377774 * a + 0.2158037573 * b, 3);
  const double m = std::pow(lightness - 0.1055613458 * a - 0.0638541728 * b, 3);
  const double s = std::pow(lightness - 0.0894841775 * a - 1.2914855480 * b, 3);
  return {4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
          -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
          -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s};
}

uint8_t EncodeSrgb(double linear) {
  const double x = std::clamp(linear, 0.0, 1.0);
  const double encoded =
      x <= 0.0031308 ? 12.92 * x : 1.055 * std::pow(x, 1 / 2.4) - 0.055;
  return static_cast<uint8_t>(std::lround(encoded * 255));
}

double DecodeSrgb(uint8_t encoded) {
  const double x = encoded / 255.0;
  return x <= 0.04045 ? x / 12.92 : std::pow((x + 0.055) / 1.055, 2.4);
}

// A screen can't show every chroma at every lightness; lightness is what must
// stay exact, so the chroma gives way.
Rgb Displayable(double lightness, double chroma, double hue) {
  if (!FromOklch(lightness, chroma, hue).in_gamut()) {
    double low = 0, high = chroma;
    for (int i = 0; i < 24; ++i) {
      const double middle = (low + high) / 2;
      (FromOklch(lightness, middle, hue).in_gamut() ? low : high) = middle;
    }
    chroma = low;
  }
  const LinearRgb c = FromOklch(lightness, chroma, hue);
  return {EncodeSrgb(c.r), EncodeSrgb(c.g), EncodeSrgb(c.b)};
}

Rgb Sequential(double t) {
  return Displayable(0.985 - 0.60 * t, 0.19 * (1 - (1 - t) * (1 - t)),
                     85 - 62 * t);
}

// Blue against vermilion is the pair that all common kinds of colour blindness
// can tell apart.
Rgb Diverging(double t) {
  const double signed_t = 2 * t - 1, u = std::abs(signed_t);
  return Displayable(0.97 - 0.50 * u, 0.19 * (1 - std::pow(1 - u, 1.6)),
                     signed_t < 0 ? 255 : 38);
}

std::array<Rgb, 256> MakeTable(Rgb (*color)(double)) {
  std::array<Rgb, 256> table;
  for (int i = 0; i < 256; ++i) table[i] = color(i / 255.0);
  return table;
}

double Luminance(Rgb c) {
  return 0.2126 * DecodeSrgb(c.r) + 0.7152 * DecodeSrgb(c.g) +
         0.0722 * DecodeSrgb(c.b);
}

}  // namespace

const std::array<Rgb, 256>& ColorTable(Scale scale) {
  static const std::array<Rgb, 256> sequential = MakeTable(Sequential);
  static const std::array<Rgb, 256> diverging = MakeTable(Diverging);
  return scale == Scale::kSequential ? sequential : diverging;
}

double ValueRange::Position(double value) const {
  if (!(high > low)) return scale == Scale::kSequential ? 0 : 0.5;
  return std::clamp((value - low) / (high - low), 0.0, 1.0);
}

Rgb ValueRange::Color(double value) const {
  if (!std::isfinite(value)) return kNonFinite;
  return ColorTable(scale)[std::lround(Position(value) * 255)];
}

ValueRange RangeOf(std::span<const float> values) {
  float low = 0, high = 0;
  for (const float value : values) {
    if (!std::isfinite(value)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low >= 0) return {Scale::kSequential, 0, high};
  const double limit =
      std::max(-static_cast<double>(low), static_cast<double>(high));
  return {Scale::kDiverging, -limit, limit};
}

Rgb TextColorOn(Rgb background) {
  // Where the contrast ratios of black and white (WCAG 2) are equal.
  return Luminance(background) > 0.179 ? kBlack : kWhite;
}

std::string HexColor(Rgb color) {
  return absl::StrFormat("#%02x%02x%02x", color.r, color.g, color.b);
}

}  // namespace limpid::render
