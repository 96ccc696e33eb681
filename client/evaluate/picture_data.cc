// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/picture_data.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/evaluate/protocol.h"
#include "client/files.h"
#include "server/input/image_resize.h"
#include "server/render/canvas.h"

namespace limpid::evaluate {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<RgbImage> ReadPicture(const std::string& path) {
  const absl::StatusOr<std::string> bytes = ReadWholeFile(path);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<RgbImage> image = DecodeImage(*bytes);
  if (!image.ok()) {
    return DataError(absl::StrCat(path, ": ", image.status().message()));
  }
  return image;
}

bool IsPicture(const fs::path& path) {
  const std::string extension = path.extension().string();
  return (extension == ".png" || extension == ".jpg" || extension == ".jpeg") &&
         !absl::EndsWith(path.stem().string(), ".mask");
}

}  // namespace

Picture PrepareMasked(std::string name, const RgbImage& image,
                      const std::vector<uint8_t>& mask, int64_t size) {
  Picture picture{std::move(name),
                  ResizeAndCrop(image, size, size, ResizeFilter::kBilinear,
                                {0, 0, size, size}),
                  {}};
  if (mask.empty()) return picture;
  for (int64_t y = 0; y < size; ++y) {
    for (int64_t x = 0; x < size; ++x) {
      const int64_t from_y = (2 * y + 1) * image.height / (2 * size);
      const int64_t from_x = (2 * x + 1) * image.width / (2 * size);
      picture.mask.push_back(
          mask[static_cast<size_t>(from_y * image.width + from_x)]);
    }
  }
  return picture;
}

absl::StatusOr<v1::Input> PictureInput(const RgbImage& image) {
  absl::StatusOr<std::string> png =
      render::EncodeRgbPng(static_cast<int>(image.width),
                           static_cast<int>(image.height), image.pixels);
  if (!png.ok()) return png.status();
  v1::Input input;
  input.set_image(*std::move(png));
  return input;
}

absl::StatusOr<std::vector<Picture>> ReadPictureFolder(
    const std::string& folder, const PictureOptions& options) {
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error)) {
    if (IsPicture(at->path())) files.push_back(at->path());
  }
  if (error) {
    return DataError(absl::StrCat(folder, ": ", error.message()));
  }
  std::sort(files.begin(), files.end());
  if (options.limit > 0 && files.size() > options.limit) {
    files.resize(options.limit);
  }
  std::vector<Picture> pictures;
  for (const fs::path& file : files) {
    const absl::StatusOr<RgbImage> image = ReadPicture(file.string());
    if (!image.ok()) return image.status();
    std::vector<uint8_t> mask;
    if (options.masks) {
      fs::path path = file;
      path.replace_extension(".mask.png");
      const absl::StatusOr<RgbImage> read = ReadPicture(path.string());
      if (!read.ok()) return read.status();
      if (read->height != image->height || read->width != image->width) {
        return DataError(
            absl::StrCat(path.string(), ": not of the picture's size"));
      }
      for (size_t i = 0; i < read->pixels.size(); i += 3) {
        mask.push_back(read->pixels[i] > 127 ? 1 : 0);
      }
    }
    pictures.push_back(
        PrepareMasked(file.stem().string(), *image, mask, options.size));
  }
  if (pictures.empty()) {
    return DataError(absl::StrCat(folder, ": no PNG or JPEG files"));
  }
  return pictures;
}

}  // namespace limpid::evaluate
