// SPDX-License-Identifier: Apache-2.0
#include "server/input/image_resize.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/unit/input/image_files.h"

namespace limpid {
namespace {

RgbImage Picture() {
  const auto picture = DecodeImage(ImageFile("resize/picture.png"));
  EXPECT_TRUE(picture.ok()) << picture.status();
  return *picture;
}

RgbImage ResizeAll(const RgbImage& image, int64_t height, int64_t width,
                   ResizeFilter filter) {
  return ResizeAndCrop(image, height, width, filter, {0, 0, height, width});
}

// What a window of a picture must be, pixel by pixel.
RgbImage Cut(const RgbImage& image, const PixelWindow& window) {
  RgbImage out{window.height, window.width, {}};
  for (int64_t y = window.top; y < window.top + window.height; ++y) {
    for (int64_t x = window.left; x < window.left + window.width; ++x) {
      const bool inside =
          y >= 0 && y < image.height && x >= 0 && x < image.width;
      for (int64_t c = 0; c < 3; ++c) {
        out.pixels.push_back(
            inside ? image.pixels[(y * image.width + x) * 3 + c] : 0);
      }
    }
  }
  return out;
}

TEST(ImageResizeTest, GivesPillowsBits) {
  const RgbImage picture = Picture();
  for (const std::string& name : ImageFiles("resize", ".ppm")) {
    const RgbImage expected = ReadPpm(name);
    const ResizeFilter filter = name.find("bicubic") != std::string::npos
                                    ? ResizeFilter::kBicubic
                                    : ResizeFilter::kBilinear;
    const RgbImage resized =
        ResizeAll(picture, expected.height, expected.width, filter);
    EXPECT_EQ(resized.height, expected.height) << name;
    EXPECT_EQ(resized.width, expected.width) << name;
    EXPECT_TRUE(resized.pixels == expected.pixels) << name;
  }
}

TEST(ImageResizeTest, SameSizeChangesNothing) {
  const RgbImage picture = Picture();
  for (const auto filter : {ResizeFilter::kBilinear, ResizeFilter::kBicubic}) {
    EXPECT_TRUE(
        ResizeAll(picture, picture.height, picture.width, filter).pixels ==
        picture.pixels);
  }
}

TEST(ImageResizeTest, WindowIsACutOfTheWhole) {
  const RgbImage picture = Picture();
  const PixelWindow windows[] = {
      {0, 0, 1, 1},   {7, 3, 20, 30}, {-5, -6, 10, 10}, {30, 80, 40, 40},
      {-9, 4, 90, 3}, {99, 0, 5, 5},  {0, -200, 5, 5},  {-1, -1, 72, 90},
  };
  for (const auto& [height, width] : {std::pair(70, 88), std::pair(31, 20)}) {
    const RgbImage whole =
        ResizeAll(picture, height, width, ResizeFilter::kBicubic);
    for (const PixelWindow& window : windows) {
      const RgbImage part =
          ResizeAndCrop(picture, height, width, ResizeFilter::kBicubic, window);
      EXPECT_TRUE(part.pixels == Cut(whole, window).pixels)
          << window.top << " " << window.left;
    }
  }
}

TEST(ImageResizeTest, StripBecomesHugeAtTheCostOfItsWindow) {
  // Whole, this would have 256 x 16,776,960 pixels.
  RgbImage strip{1, 65535, std::vector<uint8_t>(3 * 65535, 9)};
  for (size_t i = 0; i < 3; ++i) strip.pixels[strip.pixels.size() - 3 + i] = 99;
  const int64_t width = int64_t{65535} * 256;
  const RgbImage end = ResizeAndCrop(strip, 256, width, ResizeFilter::kBilinear,
                                     {16, width - 200, 224, 200});
  ASSERT_EQ(end.pixels.size(), size_t{224} * 200 * 3);
  EXPECT_EQ(end.pixels.back(), 99);
  const RgbImage middle = ResizeAndCrop(
      strip, 256, width, ResizeFilter::kBicubic, {16, width / 2, 224, 200});
  EXPECT_EQ(middle.pixels, std::vector<uint8_t>(224 * 200 * 3, 9));
}

TEST(ImageResizeTest, LargestContrastStaysInRange) {
  // Bicubic overshoots at edges; results must be clamped, not wrapped.
  RgbImage stripes{64, 64, {}};
  for (int i = 0; i < 64 * 64 * 3; ++i) {
    stripes.pixels.push_back((i / 3 / 4) % 2 ? 255 : 0);
  }
  const RgbImage out = ResizeAll(stripes, 97, 113, ResizeFilter::kBicubic);
  for (int64_t y = 0; y < out.height; ++y) {
    EXPECT_LT(out.pixels[(y * out.width + 3) * 3], 64) << y;
  }
}

TEST(CenterCropTest, RoundsHalfToEven) {
  const auto offset = [](int64_t size, int64_t crop) {
    const PixelWindow window = CenterCrop(size, 1, crop, 1);
    EXPECT_EQ(window.height, crop);
    EXPECT_EQ(window.left, 0);
    const PixelWindow turned = CenterCrop(1, size, 1, crop);
    EXPECT_EQ(turned.left, window.top);
    return window.top;
  };
  EXPECT_EQ(offset(256, 224), 16);
  EXPECT_EQ(offset(224, 224), 0);
  EXPECT_EQ(offset(225, 224), 0);  // 0.5
  EXPECT_EQ(offset(227, 224), 2);  // 1.5
  EXPECT_EQ(offset(229, 224), 2);  // 2.5
  EXPECT_EQ(offset(231, 224), 4);  // 3.5
}

TEST(CenterCropTest, PadsLessBeforeThanAfter) {
  EXPECT_EQ(CenterCrop(4, 9, 8, 8).top, -2);
  EXPECT_EQ(CenterCrop(5, 9, 8, 8).top, -1);
  EXPECT_EQ(CenterCrop(7, 9, 8, 8).top, 0);
  EXPECT_EQ(CenterCrop(7, 9, 8, 8).left, 0);
}

}  // namespace
}  // namespace limpid
