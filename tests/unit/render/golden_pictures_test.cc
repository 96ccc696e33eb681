// SPDX-License-Identifier: Apache-2.0
//
// Pictures look as they did when somebody last looked at them. They are
// compared as eyes would: by lightness and colour of blocks, so that another
// version of a library or a pixel more of margin inside a block is no
// difference.
//
// LIMPID_UPDATE_GOLDEN=1 writes them anew; look at them then.
#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/render/heatmap_png.h"
#include "server/render/overlay_png.h"

namespace limpid::render {
namespace {

constexpr int kBlock = 4;  // pixels per side

struct Picture {
  int width = 0, height = 0;
  std::vector<uint8_t> pixels;  // RGB
};

Picture Decode(const std::string& bytes) {
  Picture out;
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  EXPECT_TRUE(
      png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()));
  image.format = PNG_FORMAT_RGB;
  out.pixels.resize(PNG_IMAGE_SIZE(image));
  EXPECT_TRUE(
      png_image_finish_read(&image, nullptr, out.pixels.data(), 0, nullptr));
  out.width = static_cast<int>(image.width);
  out.height = static_cast<int>(image.height);
  return out;
}

// Lightness and two axes of colour, roughly as far apart as eyes see them: the
// opponent colours of gamma-encoded values.
std::vector<double> Blocks(const Picture& picture) {
  std::vector<double> out;
  for (int y = 0; y < picture.height; y += kBlock) {
    for (int x = 0; x < picture.width; x += kBlock) {
      double sum[3] = {0, 0, 0};
      int count = 0;
      for (int v = y; v < std::min(y + kBlock, picture.height); ++v) {
        for (int u = x; u < std::min(x + kBlock, picture.width); ++u) {
          for (int c = 0; c < 3; ++c) {
            sum[c] +=
                picture
                    .pixels[3 * (static_cast<size_t>(v) * picture.width + u) +
                            c];
          }
          ++count;
        }
      }
      const double r = sum[0] / count / 255, g = sum[1] / count / 255,
                   b = sum[2] / count / 255;
      out.insert(out.end(), {0.299 * r + 0.587 * g + 0.114 * b, 0.5 * (r - g),
                             0.5 * (b - 0.5 * (r + g))});
    }
  }
  return out;
}

struct Difference {
  double mean = 1, largest = 1;
};

Difference Compare(const Picture& a, const Picture& b) {
  if (a.width != b.width || a.height != b.height) return {};
  const std::vector<double> x = Blocks(a), y = Blocks(b);
  Difference out{0, 0};
  for (size_t i = 0; i < x.size(); ++i) {
    const double difference = std::abs(x[i] - y[i]);
    out.mean += difference / static_cast<double>(x.size());
    out.largest = std::max(out.largest, difference);
  }
  return out;
}

// A lower triangle whose entries grow with the row and shrink with the
// distance.
std::vector<float> Triangle(int size, float sign) {
  std::vector<float> out(static_cast<size_t>(size) * size, 0.0f);
  for (int i = 0; i < size; ++i) {
    for (int j = 0; j <= i; ++j) {
      out[static_cast<size_t>(i) * size + j] =
          ((i - j) % 2 == 1 ? sign : 1.0f) * static_cast<float>(i + 1) /
          static_cast<float>(1 + i - j);
    }
  }
  return out;
}

absl::StatusOr<std::string> Attribution(float sign) {
  AttributionFigure figure;
  figure.caption = {"model - integrated-gradients", {"prediction: good 93 %"}};
  figure.tokens = {"A", " gorge", "ous", ", ", "witty", " movie", "."};
  figure.values = {0.1f, 1.5f, 0.6f, 0, sign * 0.8f, sign * 0.3f, 1.1f};
  figure.position = 6;
  return RenderAttributionPng(figure);
}

absl::StatusOr<std::string> Matrix(float sign) {
  const std::vector<float> values = Triangle(6, sign);
  MatrixFigure figure;
  figure.caption = {"model - layer 0", {"rows: target, columns: source"}};
  figure.rows = figure.columns = 6;
  figure.values = values;
  figure.row_labels =
      figure.column_labels = {"A", " gorge", "ous", " wit", "ty", "."};
  return RenderMatrixPng(figure);
}

absl::StatusOr<std::string> Overlay(float sign) {
  std::vector<uint8_t> pixels;
  for (int y = 0; y < 32; ++y) {
    for (int x = 0; x < 32; ++x) {
      const bool inside = (x - 12) * (x - 12) + (y - 12) * (y - 12) < 64;
      pixels.insert(pixels.end(), {static_cast<uint8_t>(inside ? 240 : 4 * x),
                                   static_cast<uint8_t>(inside ? 200 : 90),
                                   static_cast<uint8_t>(inside ? 30 : 4 * y)});
    }
  }
  const std::vector<float> map = Triangle(8, sign);
  OverlayFigure figure;
  figure.caption = {"vim - raw-attention", {}};
  figure.width = figure.height = 32;
  figure.pixels = pixels;
  figure.maps = {{"raw-attention", 8, 8, map}, {"occlusion", 8, 8, map}};
  return RenderOverlayPng(figure);
}

struct Case {
  const char* name;
  absl::StatusOr<std::string> (*render)(float sign);
};

class GoldenPicturesTest : public ::testing::TestWithParam<Case> {};

TEST_P(GoldenPicturesTest, LookAsTheyDid) {
  const auto [name, render] = GetParam();
  const std::string path =
      std::string(LIMPID_TEST_DATA) + "/pictures/" + name + ".png";
  const absl::StatusOr<std::string> bytes = render(-1);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  if (std::getenv("LIMPID_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(path, std::ios::binary) << *bytes;
  }
  std::ifstream file(path, std::ios::binary);
  ASSERT_TRUE(file.is_open()) << path;
  std::ostringstream golden;
  golden << file.rdbuf();
  const Picture expected = Decode(golden.str());
  const Difference same = Compare(Decode(*bytes), expected);
  EXPECT_LT(same.mean, 0.002);
  EXPECT_LT(same.largest, 0.1);
  // The measure sees what people would see: other signs, other colours.
  const Difference other = Compare(Decode(*render(1)), expected);
  EXPECT_GT(other.largest, 0.1);
}

INSTANTIATE_TEST_SUITE_P(Figures, GoldenPicturesTest,
                         ::testing::Values(Case{"attribution", Attribution},
                                           Case{"matrix", Matrix},
                                           Case{"overlay", Overlay}),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

}  // namespace
}  // namespace limpid::render
