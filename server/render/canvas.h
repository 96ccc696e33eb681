// SPDX-License-Identifier: Apache-2.0
//
// A picture in memory with the few ways of drawing that heatmaps need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/render/colormap.h"

namespace limpid::render {

// Width in pixels of one line of text whose dots are squares of `dot` pixels.
int TextWidth(absl::string_view text, int dot);
// Height of a line, descenders included.
int TextHeight(int dot);
// The text cut to at most `max_width` pixels, with ".." in place of what is
// missing.
std::string FitText(absl::string_view text, int dot, int max_width);

// A picture [height, width, 3], RGB, as a PNG file. INVALID_ARGUMENT if the
// sizes do not fit, INTERNAL if libpng fails. Pure and thread-safe.
absl::StatusOr<std::string> EncodeRgbPng(int width, int height,
                                         std::span<const uint8_t> pixels);

// Everything that is drawn beyond the border is left out. Not thread-safe.
class Canvas {
 public:
  // Both greater than 0; width * height * 3 bytes are taken at once.
  Canvas(int width, int height, Rgb background = kWhite);

  int width() const { return width_; }
  int height() const { return height_; }

  // Of a pixel inside the picture.
  void SetPixel(int x, int y, Rgb color) {
    pixels_[static_cast<size_t>(y) * width_ + x] = color;
  }

  void FillRect(int x, int y, int width, int height, Rgb color);
  // A frame of `thickness` pixels just inside the rectangle.
  void DrawFrame(int x, int y, int width, int height, int thickness, Rgb color);
  // From left to right; (x, y) is the upper left corner.
  void DrawText(int x, int y, absl::string_view text, int dot, Rgb color);
  // From bottom to top; (x, y) is the lower left corner.
  void DrawTextUp(int x, int y, absl::string_view text, int dot, Rgb color);
  // Another picture with its upper left corner at (x, y).
  void DrawCanvas(int x, int y, const Canvas& other);
  // A bar that shows a range, with its low end, middle and high end named below
  // it: kBarHeight pixels in all.
  void DrawColorBar(int x, int y, int width, const ValueRange& range);
  static constexpr int kBarHeight = 40;

  // The picture as a PNG file. INTERNAL if libpng fails.
  absl::StatusOr<std::string> EncodePng() const;

 private:
  int width_, height_;
  std::vector<Rgb> pixels_;  // row-major
};

}  // namespace limpid::render
