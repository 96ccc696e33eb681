// SPDX-License-Identifier: Apache-2.0
//
// SVG files: text stays text, and nothing in it becomes markup.
#include "server/render/svg.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace limpid::render {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

size_t CountOf(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos;
       at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

TEST(SvgTest, TokensAreTextOnTheirColours) {
  AttributionFigure figure;
  figure.caption = {"model - method", {"prediction: good 93 %"}};
  figure.tokens = {"A", " good", " film"};
  figure.values = {0.0f, 1.0f, 0.25f};
  figure.position = 2;
  const auto svg = RenderAttributionSvg(figure);
  ASSERT_TRUE(svg.ok()) << svg.status();
  EXPECT_THAT(*svg, HasSubstr("> good</text>"));
  EXPECT_THAT(*svg, HasSubstr("prediction: good 93 %"));
  EXPECT_THAT(
      *svg, HasSubstr(HexColor(ColorTable(Scale::kSequential)[255]) + "\"/>"));
  EXPECT_EQ(CountOf(*svg, "stroke-width=\"2\""), 1u);
}

TEST(SvgTest, HostileTextStaysText) {
  AttributionFigure figure;
  figure.caption.title = "</text><script>alert(1)</script>";
  figure.tokens = {"<image href='x'/>\x1b", "&"};
  figure.values = {1, 2};
  const auto svg = RenderAttributionSvg(figure);
  ASSERT_TRUE(svg.ok());
  EXPECT_THAT(*svg, Not(HasSubstr("<script")));
  EXPECT_THAT(*svg, Not(HasSubstr("<image")));
  EXPECT_THAT(*svg, Not(HasSubstr("\x1b")));
}

TEST(SvgTest, MatricesHaveTokensOnTheirAxes) {
  const std::vector<float> values = {1, 0, 0.5f, 0.5f};
  MatrixFigure figure;
  figure.rows = figure.columns = 2;
  figure.values = values;
  figure.row_labels = figure.column_labels = {"A", " film"};
  const auto svg = RenderMatrixSvg(figure, /*patches=*/false);
  ASSERT_TRUE(svg.ok());
  EXPECT_EQ(CountOf(*svg, "crispEdges"), 4u);
  EXPECT_EQ(CountOf(*svg, "> film</text>"), 2u);
  EXPECT_EQ(CountOf(*RenderMatrixSvg(figure, /*patches=*/true), "film"), 0u);
}

TEST(SvgTest, LargeMatricesAreReduced) {
  const std::vector<float> values(500 * 500, 1.0f);
  MatrixFigure figure;
  figure.rows = figure.columns = 500;
  figure.values = values;
  const auto svg = RenderMatrixSvg(figure, /*patches=*/false);
  ASSERT_TRUE(svg.ok());
  EXPECT_LE(CountOf(*svg, "crispEdges"), 128u * 128u);
}

TEST(SvgTest, SizesThatDoNotFitAreRefused) {
  AttributionFigure text;
  EXPECT_FALSE(RenderAttributionSvg(text).ok());
  text.tokens = {"a"};
  EXPECT_FALSE(RenderAttributionSvg(text).ok());
  MatrixFigure matrix;
  matrix.rows = matrix.columns = 2;
  EXPECT_FALSE(RenderMatrixSvg(matrix, false).ok());
}

}  // namespace
}  // namespace limpid::render
