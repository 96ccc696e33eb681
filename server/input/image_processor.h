// SPDX-License-Identifier: Apache-2.0
//
// From a PNG or JPEG file to the numbers that a vision model reads.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"
#include "server/input/image_resize.h"

namespace limpid {

// A rectangle in the pixels of the original picture.
struct PictureBox {
  double left = 0;
  double top = 0;
  double width = 0;
  double height = 0;
};

// A picture as a model reads it.
struct Pixels {
  int64_t height = 0;
  int64_t width = 0;
  std::vector<float> values;  // [3, height, width], normalised, RGB

  // Size of the original picture, and what of it the model sees: the point
  // (x, y) of the model's input is (box.left + x * box.width / width,
  // box.top + y * box.height / height) of the original. The box reaches beyond
  // the original where the crop was padded.
  int64_t picture_height = 0;
  int64_t picture_width = 0;
  PictureBox box;
};

// Decodes, resizes, crops and normalises. Immutable and thread-safe; a plain
// value.
class ImageProcessor {
 public:
  // How the picture gets its size before it is cropped.
  struct Resize {
    enum class Kind { kNone, kShortestEdge, kCover, kExact };
    Kind kind = Kind::kNone;
    // kShortestEdge: both are the shorter side. kCover: the picture keeps its
    // shape and is just large enough to cover this. kExact: this, whatever the
    // shape was.
    int64_t height = 0;
    int64_t width = 0;
    ResizeFilter filter = ResizeFilter::kBicubic;
  };

  // For a model whose input is [3, height, width], both positive. Reads
  // preprocessor_config.json of the model's folder, in Hugging Face's fields:
  // do_resize, size, resample, do_center_crop, crop_size, do_rescale,
  // rescale_factor, do_normalize, image_mean, image_std. Others are ignored,
  // but for do_pad, do_flip_channel_order and crop_pct, which would change the
  // picture and are refused unless they are off.
  //
  // A field that is missing is as in the evaluation of Vim and DeiT, which is
  // what a folder without that file gets: bicubic to 256/224 of the model's
  // size, keeping the shape of the picture (for a square model: its shorter
  // side, rounded down), centre crop to the model's size, / 255, mean and
  // deviation of ImageNet. Only do_center_crop differs: it is off where the
  // file's `size` gives both sides.
  //
  // `size` is {"shortest_edge"}, {"height", "width"}, or one integer, which
  // means a square, as it does to Hugging Face's ViT and DeiT. Crops are
  // torchvision's where Hugging Face's older processors round differently.
  //
  // DATA_LOSS: the file can't be read or is not JSON (reason CONFIG_DAMAGED);
  // fields of a wrong type or value, all named, or a result that is not of the
  // model's size (CONFIG_INVALID).
  static absl::StatusOr<ImageProcessor> Open(const std::string& folder,
                                             int64_t height, int64_t width);

  // INVALID_ARGUMENT, field "input.image", as DecodeImage; or the file's
  // settings do not bring this picture to the model's size.
  absl::StatusOr<Pixels> Process(absl::string_view bytes) const;

 private:
  ImageProcessor(int64_t height, int64_t width)
      : height_(height), width_(width) {}

  int64_t height_;
  int64_t width_;
  Resize resize_;
  bool crop_ = true;
  // What a value of a channel becomes.
  std::array<std::array<float, 256>, 3> table_ = {};
};

}  // namespace limpid
