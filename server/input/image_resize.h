// SPDX-License-Identifier: Apache-2.0
//
// Resizing and cropping that give the bits that Pillow and torchvision give: a
// model that was evaluated on their pictures sees the same ones here. Pillow up
// to 12.1, that is: later versions resize pictures that get much flatter down
// before across, which rounds differently. All functions are pure and
// thread-safe.
#pragma once

#include <cstdint>

#include "server/input/image_decode.h"

namespace limpid {

// The filters, widened when a picture shrinks so that every pixel counts.
// Bicubic has a = -1/2.
enum class ResizeFilter { kBilinear, kBicubic };

// A rectangle of a picture, in pixels. What lies outside the picture is black.
struct PixelWindow {
  int64_t top = 0;
  int64_t left = 0;
  int64_t height = 0;
  int64_t width = 0;
};

// Where torchvision's CenterCrop cuts: half an odd remainder is rounded to the
// even number. A picture smaller than the crop is padded, so that `top` or
// `left` is negative.
PixelWindow CenterCrop(int64_t height, int64_t width, int64_t crop_height,
                       int64_t crop_width);

// Resizes to [height, width] and returns `window` of it. Only the window is
// computed, so that time and memory depend on it and on the picture and not on
// [height, width], which may be far larger. All sizes must be positive.
RgbImage ResizeAndCrop(const RgbImage& image, int64_t height, int64_t width,
                       ResizeFilter filter, const PixelWindow& window);

}  // namespace limpid
