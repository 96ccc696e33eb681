// SPDX-License-Identifier: Apache-2.0
//
// Pictures with or without masks, at the size that a model reads, from a folder
// or from the published file of ImageNet-Segmentation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "limpid/v1/explanation.pb.h"
#include "server/input/image_decode.h"

namespace limpid::evaluate {

struct Picture {
  std::string name;
  RgbImage image;             // [size, size]
  std::vector<uint8_t> mask;  // [size * size], 1 for the object; may be empty
};

struct PictureOptions {
  int64_t size = 64;   // of the model's square input
  size_t limit = 0;    // of pictures; 0 for all
  bool masks = false;  // whether every picture must have one
};

// The whole picture, bilinear, and the mask, nearest, at the size. `mask` has
// the picture's own size or is empty.
Picture PrepareMasked(std::string name, const RgbImage& image,
                      const std::vector<uint8_t>& mask, int64_t size);

// The picture as an input of a request: a PNG file. A model whose preparation
// takes the whole picture to its size leaves it as it is.
absl::StatusOr<v1::Input> PictureInput(const RgbImage& image);

// Files NAME.png, NAME.jpg or NAME.jpeg in the order of their names, with their
// masks in NAME.mask.png (light: object). INVALID_ARGUMENT names the file that
// is not as it should be.
absl::StatusOr<std::vector<Picture>> ReadPictureFolder(
    const std::string& folder, const PictureOptions& options);

}  // namespace limpid::evaluate
