// SPDX-License-Identifier: Apache-2.0
#include "server/render/canvas.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/render/font.h"
#include "server/render/token_text.h"

namespace limpid::render {

static_assert(sizeof(Rgb) == 3, "pixels_ is handed to libpng as bytes");

int TextWidth(absl::string_view text, int dot) {
  return static_cast<int>(DecodeUtf8(text).size()) * kGlyphAdvance * dot;
}

int TextHeight(int dot) { return kGlyphHeight * dot; }

std::string FitText(absl::string_view text, int dot, int max_width) {
  const std::vector<char32_t> characters = DecodeUtf8(text);
  const size_t room =
      static_cast<size_t>(std::max(0, max_width / (kGlyphAdvance * dot)));
  if (characters.size() <= room) return std::string(text);
  std::string out;
  const size_t kept = room >= 2 ? room - 2 : 0;
  for (size_t i = 0; i < kept; ++i) AppendUtf8(characters[i], out);
  return out + std::string(std::min<size_t>(room, 2), '.');
}

Canvas::Canvas(int width, int height, Rgb background)
    : width_(std::max(width, 1)),
      height_(std::max(height, 1)),
      pixels_(static_cast<size_t>(width_) * height_, background) {}

void Canvas::FillRect(int x, int y, int width, int height, Rgb color) {
  const int left = std::max(x, 0), right = std::min(x + width, width_);
  const int bottom = std::min(y + height, height_);
  if (left >= right) return;
  for (int row = std::max(y, 0); row < bottom; ++row) {
    const auto begin = pixels_.begin() + static_cast<ptrdiff_t>(row) * width_;
    std::fill(begin + left, begin + right, color);
  }
}

void Canvas::DrawFrame(int x, int y, int width, int height, int thickness,
                       Rgb color) {
  FillRect(x, y, width, thickness, color);
  FillRect(x, y + height - thickness, width, thickness, color);
  FillRect(x, y, thickness, height, color);
  FillRect(x + width - thickness, y, thickness, height, color);
}

void Canvas::DrawText(int x, int y, absl::string_view text, int dot,
                      Rgb color) {
  for (const char32_t c : DecodeUtf8(text)) {
    for (int row = 0; row < kGlyphHeight; ++row) {
      for (int column = 0; column < kGlyphWidth; ++column) {
        if (GlyphDot(c, column, row)) {
          FillRect(x + column * dot, y + row * dot, dot, dot, color);
        }
      }
    }
    x += kGlyphAdvance * dot;
  }
}

void Canvas::DrawTextUp(int x, int y, absl::string_view text, int dot,
                        Rgb color) {
  for (const char32_t c : DecodeUtf8(text)) {
    for (int row = 0; row < kGlyphHeight; ++row) {
      for (int column = 0; column < kGlyphWidth; ++column) {
        if (GlyphDot(c, column, row)) {
          FillRect(x + row * dot, y - (column + 1) * dot, dot, dot, color);
        }
      }
    }
    y -= kGlyphAdvance * dot;
  }
}

void Canvas::DrawCanvas(int x, int y, const Canvas& other) {
  const int left = std::max(0, -x), right = std::min(other.width_, width_ - x);
  const int bottom = std::min(other.height_, height_ - y);
  if (left >= right) return;
  for (int row = std::max(0, -y); row < bottom; ++row) {
    const auto from =
        other.pixels_.begin() + static_cast<ptrdiff_t>(row) * other.width_;
    std::copy(
        from + left, from + right,
        pixels_.begin() + static_cast<ptrdiff_t>(y + row) * width_ + x + left);
  }
}

void Canvas::DrawColorBar(int x, int y, int width, const ValueRange& range) {
  constexpr int kDot = 2, kBar = 14;
  for (int i = 0; i < width; ++i) {
    const double t = width > 1 ? static_cast<double>(i) / (width - 1) : 0;
    FillRect(x + i, y, 1, kBar, ColorTable(range.scale)[std::lround(t * 255)]);
  }
  DrawFrame(x, y, width, kBar, 1, {120, 120, 120});
  const auto name = [](double value) { return absl::StrFormat("%.3g", value); };
  const std::string low = name(range.low), high = name(range.high);
  const std::string middle = name((range.low + range.high) / 2);
  const int below = y + kBar + 6;
  DrawText(x, below, low, kDot, kBlack);
  if (range.high > range.low) {
    DrawText(x + (width - TextWidth(middle, kDot)) / 2, below, middle, kDot,
             kBlack);
    DrawText(x + width - TextWidth(high, kDot), below, high, kDot, kBlack);
  }
}

absl::StatusOr<std::string> EncodeRgbPng(int width, int height,
                                         std::span<const uint8_t> pixels) {
  if (width <= 0 || height <= 0 ||
      pixels.size() != size_t{3} * static_cast<size_t>(width) *
                           static_cast<size_t>(height)) {
    return absl::InvalidArgumentError("the picture's sizes do not fit");
  }
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(width);
  image.height = static_cast<png_uint_32>(height);
  image.format = PNG_FORMAT_RGB;
  // An upper bound of the size, so that one pass is enough.
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string bytes(size, '\0');
  if (!png_image_write_to_memory(&image, bytes.data(), &size, 0, pixels.data(),
                                 0, nullptr)) {
    return absl::InternalError(
        absl::StrCat("libpng could not encode the picture: ", image.message));
  }
  bytes.resize(size);
  return bytes;
}

absl::StatusOr<std::string> Canvas::EncodePng() const {
  static_assert(sizeof(Rgb) == 3);
  return EncodeRgbPng(width_, height_,
                      {&pixels_.front().r, 3 * pixels_.size()});
}

}  // namespace limpid::render
