// SPDX-License-Identifier: Apache-2.0
//
// The pictures are PNG files that decode to what was drawn, whatever the values
// and texts are.
#include "server/render/heatmap_png.h"

#include <png.h>

#include <limits>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace limpid::render {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Decoded {
  int width = 0, height = 0;
  std::vector<uint8_t> pixels;

  bool Has(Rgb color) const {
    for (size_t i = 0; i + 2 < pixels.size(); i += 3) {
      if (pixels[i] == color.r && pixels[i + 1] == color.g &&
          pixels[i + 2] == color.b) {
        return true;
      }
    }
    return false;
  }
};

Decoded Decode(const absl::StatusOr<std::string>& bytes) {
  Decoded out;
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  if (!bytes.ok()) return out;
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  EXPECT_TRUE(
      png_image_begin_read_from_memory(&image, bytes->data(), bytes->size()))
      << image.message;
  image.format = PNG_FORMAT_RGB;
  out.pixels.resize(PNG_IMAGE_SIZE(image));
  EXPECT_TRUE(
      png_image_finish_read(&image, nullptr, out.pixels.data(), 0, nullptr));
  out.width = static_cast<int>(image.width);
  out.height = static_cast<int>(image.height);
  return out;
}

TEST(HeatmapPngTest, AttributionShowsTheStrongestTokenInTheLastColour) {
  AttributionFigure figure;
  figure.caption = {"model - method", {"prediction: good 93 %"}};
  figure.tokens = {"A", " good", " film"};
  figure.values = {0.0f, 1.0f, 0.25f};
  figure.position = 2;
  const Decoded picture = Decode(RenderAttributionPng(figure));
  EXPECT_EQ(picture.width, kFigureWidth);
  EXPECT_TRUE(picture.Has(ColorTable(Scale::kSequential)[255]));
}

TEST(HeatmapPngTest, MoreTokensTakeMoreLines) {
  AttributionFigure figure;
  figure.tokens.assign(5, " token");
  figure.values.assign(5, 1.0f);
  const int little = Decode(RenderAttributionPng(figure)).height;
  figure.tokens.assign(100, " token");
  figure.values.assign(100, 1.0f);
  EXPECT_GT(Decode(RenderAttributionPng(figure)).height, little + 100);
}

TEST(HeatmapPngTest, VeryLongTextIsCut) {
  AttributionFigure figure;
  figure.tokens.assign(100000, "\n");
  figure.values.assign(100000, 1.0f);
  EXPECT_LT(Decode(RenderAttributionPng(figure)).height, 200000);
}

TEST(HeatmapPngTest, HostileTextsAndValuesAreDrawn) {
  AttributionFigure figure;
  figure.caption.title = std::string(10000, '\xff');
  figure.tokens = {std::string("\0\x1b[2J", 5), "\xff\xfe", "",
                   std::string(100000, 'w')};
  figure.values = {kNan, std::numeric_limits<float>::infinity(), -1e38f, 1e38f};
  EXPECT_TRUE(Decode(RenderAttributionPng(figure)).Has(kNonFinite));
}

TEST(HeatmapPngTest, ConstantAndAllNanMapsAreDrawn) {
  AttributionFigure figure;
  figure.tokens = {"a", "b"};
  figure.values = {0, 0};
  Decode(RenderAttributionPng(figure));
  figure.values = {kNan, kNan};
  Decode(RenderAttributionPng(figure));
}

TEST(HeatmapPngTest, AttributionRefusesSizesThatDoNotFit) {
  AttributionFigure figure;
  figure.tokens = {"a", "b"};
  figure.values = {1};
  EXPECT_EQ(RenderAttributionPng(figure).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(RenderAttributionPng(AttributionFigure()).ok());
}

TEST(HeatmapPngTest, SmallMatrixHasLabelsAndLargeOneNone) {
  const std::vector<float> values(8 * 8, 0.5f);
  MatrixFigure figure;
  figure.rows = figure.columns = 8;
  figure.values = values;
  const Decoded plain = Decode(RenderMatrixPng(figure));
  figure.row_labels.assign(8, "row");
  figure.column_labels.assign(8, "column");
  EXPECT_GT(Decode(RenderMatrixPng(figure)).height, plain.height + 100);
}

TEST(HeatmapPngTest, MatrixRefusesSizesThatDoNotFit) {
  const std::vector<float> values(6);
  MatrixFigure figure;
  figure.values = values;
  figure.rows = figure.columns = int64_t{1} << 32;  // the product is 2^64
  EXPECT_FALSE(RenderMatrixPng(figure).ok());
  figure.rows = -2;
  figure.columns = -3;
  EXPECT_FALSE(RenderMatrixPng(figure).ok());
  figure.rows = figure.columns = 0;
  EXPECT_FALSE(RenderMatrixPng(figure).ok());
}

TEST(HeatmapPngTest, GridIsDrawn) {
  const std::vector<float> values = {-1, 0, 1, 2, 3, 4};
  MatrixFigure figure;
  figure.rows = 2;
  figure.columns = 3;
  figure.values = values;
  const Decoded picture = Decode(RenderGridPng(figure));
  EXPECT_TRUE(picture.Has(ColorTable(Scale::kDiverging)[255]));
}

TEST(HeatmapPngTest, ReductionKeepsTheLargestEntryOfEachBlock) {
  std::vector<float> values(9, 0.0f);
  values[4] = -5;  // row 1, column 1
  values[8] = 2;   // row 2, column 2
  const ReducedMatrix reduced = ReduceMatrix(values, 3, 3, 2);
  EXPECT_EQ(reduced.factor, 2);
  EXPECT_EQ(reduced.values, (std::vector<float>{-5, 0, 0, 2}));
}

TEST(HeatmapPngTest, ReductionKeepsNan) {
  const std::vector<float> values = {1, kNan, 3, 4};
  const ReducedMatrix reduced = ReduceMatrix(values, 2, 2, 1);
  ASSERT_EQ(reduced.values.size(), 1u);
  EXPECT_TRUE(std::isnan(reduced.values[0]));
}

TEST(HeatmapPngTest, FittedTextSaysThatItWasCut) {
  EXPECT_EQ(FitText("abcdef", 1, 6 * 4), "ab..");
  EXPECT_EQ(FitText("abcd", 1, 6 * 4), "abcd");
  EXPECT_EQ(FitText("abcd", 1, 0), "");
}

}  // namespace
}  // namespace limpid::render
