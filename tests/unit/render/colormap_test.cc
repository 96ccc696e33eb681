// SPDX-License-Identifier: Apache-2.0
//
// The colour scales can be read: lightness runs one way, ends differ for every
// kind of sight, odd values do no harm.
#include "server/render/colormap.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace limpid::render {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

double Lightness(Rgb c) {
  const auto linear = [](uint8_t x) { return std::pow(x / 255.0, 2.2); };
  return 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b);
}

TEST(ColormapTest, SequentialScaleDarkensSteadily) {
  const auto& table = ColorTable(Scale::kSequential);
  for (int i = 1; i < 256; ++i) {
    EXPECT_LE(Lightness(table[i]), Lightness(table[i - 1]) + 0.004) << i;
  }
  EXPECT_GT(Lightness(table[0]), 0.9);
  EXPECT_LT(Lightness(table[255]), 0.12);
}

TEST(ColormapTest, DivergingScaleIsPaleInTheMiddleAndDarkAtBothEnds) {
  const auto& table = ColorTable(Scale::kDiverging);
  for (int i = 1; i < 128; ++i) {
    EXPECT_GE(Lightness(table[i]), Lightness(table[i - 1]) - 0.004) << i;
    EXPECT_GE(Lightness(table[255 - i]), Lightness(table[256 - i]) - 0.004);
  }
  EXPECT_GT(Lightness(table[128]), 0.85);
  EXPECT_NEAR(Lightness(table[0]), Lightness(table[255]), 0.08);
}

TEST(ColormapTest, DivergingEndsDifferInBlueWhichNoCommonDeficiencyLoses) {
  const auto& table = ColorTable(Scale::kDiverging);
  EXPECT_GT(table[0].b, table[0].r + 80);
  EXPECT_GT(table[255].r, table[255].b + 80);
}

TEST(ColormapTest, RangeOfOneSignStartsAtZero) {
  const ValueRange range = RangeOf(std::vector<float>{0.5f, 2.0f});
  EXPECT_EQ(range.scale, Scale::kSequential);
  EXPECT_EQ(range.low, 0);
  EXPECT_EQ(range.high, 2);
  EXPECT_EQ(range.Color(2), ColorTable(Scale::kSequential)[255]);
}

TEST(ColormapTest, RangeWithNegativeValuesIsSymmetric) {
  const ValueRange range = RangeOf(std::vector<float>{-3.0f, 1.0f});
  EXPECT_EQ(range.scale, Scale::kDiverging);
  EXPECT_EQ(range.low, -3);
  EXPECT_EQ(range.high, 3);
  EXPECT_EQ(range.Position(0), 0.5);
}

TEST(ColormapTest, ConstantAndEmptyMapsArePale) {
  const ValueRange zeros = RangeOf(std::vector<float>{0, 0});
  EXPECT_EQ(zeros.Color(0), ColorTable(Scale::kSequential)[0]);
  EXPECT_EQ(RangeOf({}).Color(0), ColorTable(Scale::kSequential)[0]);
}

TEST(ColormapTest, NonFiniteValuesAreGreyAndDoNotStretchTheRange) {
  const ValueRange range =
      RangeOf(std::vector<float>{kNan, 1.0f, kInfinity, -kInfinity});
  EXPECT_EQ(range.high, 1);
  EXPECT_EQ(range.low, 0);
  EXPECT_EQ(range.Color(kNan), kNonFinite);
  EXPECT_EQ(range.Color(-kInfinity), kNonFinite);
}

TEST(ColormapTest, ValuesOutsideTheRangeAreClamped) {
  const ValueRange range{Scale::kSequential, 0, 1};
  EXPECT_EQ(range.Color(7), range.Color(1));
  EXPECT_EQ(range.Color(-7), range.Color(0));
}

TEST(ColormapTest, TheLargestFloatsDoNotOverflow) {
  const float most = std::numeric_limits<float>::max();
  const ValueRange range = RangeOf(std::vector<float>{-most, most});
  EXPECT_EQ(range.Position(-most), 0);
  EXPECT_EQ(range.Position(most), 1);
}

TEST(ColormapTest, TextIsBlackOnPaleAndWhiteOnDark) {
  EXPECT_EQ(TextColorOn(kWhite), kBlack);
  EXPECT_EQ(TextColorOn(ColorTable(Scale::kSequential)[255]), kWhite);
  EXPECT_EQ(HexColor({1, 171, 255}), "#01abff");
}

}  // namespace
}  // namespace limpid::render
