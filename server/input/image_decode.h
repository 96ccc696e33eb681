// SPDX-License-Identifier: Apache-2.0
//
// PNG and JPEG files to RGB as Pillow's Image.open(...).convert("RGB") makes
// it: published vision models were evaluated on pictures read that way.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid {

// A picture, [height, width, 3], rows from the top, RGB from 0 to 255.
struct RgbImage {
  int64_t height = 0;
  int64_t width = 0;
  std::vector<uint8_t> pixels;
};

// What a decoded picture may be; bounds the memory and the time that a small
// file can cost.
struct ImageLimits {
  // A picture of one pixel shows a model the same thing everywhere.
  int64_t min_pixels = 2;
  int64_t max_pixels = int64_t{16} << 20;
  // Of either side; also the most that a JPEG file can say.
  int64_t max_side = 65535;
  // Scans of a JPEG file. Common ones have up to 12; each costs a walk over the
  // picture, 10 to 25 ms for the largest, for a few bytes.
  int max_scans = 64;
};

// Decodes a file; its first bytes say whether it is PNG or JPEG.
//
//  - Alpha and transparent colours are dropped, not blended: hidden colours
//    show, as they do to models evaluated through Pillow.
//  - Gamma, colour profiles and the orientation in EXIF are not applied, as
//    torchvision's folders of pictures don't.
//  - Bytes after the end of the picture are ignored, and so is what a decoder
//    only warns of, except missing data.
//
// INVALID_ARGUMENT, reason IMAGE_INVALID, field "input.image": another format;
// beyond a limit, which is named; 16 bits per channel (Pillow clips grey ones
// to white); CMYK (its colours depend on a profile); animated PNG; damaged or
// cut short, be it by one byte.
//
// Limits are checked before memory is taken for pixels. At most 10 bytes a
// pixel are taken, progressive JPEG being the worst. Pure and thread-safe.
absl::StatusOr<RgbImage> DecodeImage(absl::string_view bytes,
                                     const ImageLimits& limits = {});

}  // namespace limpid
