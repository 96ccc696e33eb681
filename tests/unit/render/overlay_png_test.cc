// SPDX-License-Identifier: Apache-2.0
//
// Maps over pictures: opacity, contour and sizes.
#include "server/render/overlay_png.h"

#include <png.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace limpid::render {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// How many pixels of the PNG file have a colour.
size_t Count(const absl::StatusOr<std::string>& bytes, Rgb color) {
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  if (!bytes.ok()) return 0;
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  EXPECT_TRUE(
      png_image_begin_read_from_memory(&image, bytes->data(), bytes->size()));
  image.format = PNG_FORMAT_RGB;
  std::vector<uint8_t> pixels(PNG_IMAGE_SIZE(image));
  EXPECT_TRUE(
      png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr));
  size_t count = 0;
  for (size_t i = 0; i + 2 < pixels.size(); i += 3) {
    count += Rgb{pixels[i], pixels[i + 1], pixels[i + 2]} == color;
  }
  return count;
}

class OverlayPngTest : public ::testing::Test {
 protected:
  OverlayPngTest() : pixels_(4 * 4 * 3), values_(4, 0.0f) {
    for (size_t i = 0; i < pixels_.size(); i += 3) {
      pixels_[i] = kPicture.r;
      pixels_[i + 1] = kPicture.g;
      pixels_[i + 2] = kPicture.b;
    }
    values_[3] = 1;
    figure_.width = figure_.height = 4;
    figure_.pixels = pixels_;
    figure_.maps = {{"method", 2, 2, values_}};
    figure_.contour_quantile = 1;
  }

  static constexpr Rgb kPicture{10, 200, 30};
  std::vector<uint8_t> pixels_;
  std::vector<float> values_;
  OverlayFigure figure_;
};

TEST_F(OverlayPngTest, OpacityMixesMapAndPicture) {
  const Rgb strongest = ColorTable(Scale::kSequential)[255];
  figure_.opacity = 0;
  const size_t both = Count(RenderOverlayPng(figure_), kPicture);
  figure_.opacity = 1;
  const auto covered = RenderOverlayPng(figure_);
  // The picture itself, without the panel that the map covers.
  EXPECT_EQ(2 * Count(covered, kPicture), both);
  EXPECT_GE(Count(covered, strongest), both / 8);
  figure_.opacity = 0.5;
  const auto half = [](int a, int b) {
    return static_cast<uint8_t>(std::lround(a + (b - a) * 0.5));
  };
  EXPECT_GE(Count(RenderOverlayPng(figure_),
                  {half(kPicture.r, strongest.r), half(kPicture.g, strongest.g),
                   half(kPicture.b, strongest.b)}),
            both / 8);
}

TEST_F(OverlayPngTest, TheStrongestPatchesAreFramed) {
  figure_.opacity = 0;
  const size_t before = Count(RenderOverlayPng(figure_), kPicture);
  figure_.contour_quantile = 0.75;
  const size_t framed = Count(RenderOverlayPng(figure_), kPicture);
  // The frame of a quarter of the panel is its border, not its area.
  EXPECT_LT(framed, before);
  EXPECT_GT(framed, before * 9 / 10);
}

TEST_F(OverlayPngTest, LevelsAreQuantiles) {
  const std::vector<float> ten = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0};
  EXPECT_EQ(ContourLevel(ten, 0.9), 9);
  EXPECT_EQ(ContourLevel(ten, 0.5), 5);
  const std::vector<float> odd = {kNan, 1, 2};
  EXPECT_EQ(ContourLevel(odd, 0.5), 2);
  EXPECT_TRUE(std::isinf(ContourLevel(std::vector<float>{1, 1}, 0.5)));
  EXPECT_TRUE(std::isinf(ContourLevel({}, 0.5)));
}

TEST_F(OverlayPngTest, SizesThatDoNotFitAreRefused) {
  figure_.width = 5;
  EXPECT_FALSE(RenderOverlayPng(figure_).ok());
  figure_.width = 4;
  figure_.maps[0].rows = 3;
  EXPECT_FALSE(RenderOverlayPng(figure_).ok());
  figure_.maps.clear();
  EXPECT_FALSE(RenderOverlayPng(figure_).ok());
}

TEST_F(OverlayPngTest, FlatPicturesAndManyMapsFit) {
  const std::vector<uint8_t> line(2000 * 3, 7);
  figure_.width = 2000;
  figure_.height = 1;
  figure_.pixels = line;
  figure_.maps.assign(7, figure_.maps[0]);
  EXPECT_TRUE(RenderOverlayPng(figure_).ok());
}

}  // namespace
}  // namespace limpid::render
