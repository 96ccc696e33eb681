// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/statistics.h"

#include <cmath>

#include "client/evaluate/seeded_random.h"
#include "gtest/gtest.h"

namespace limpid::evaluate {
namespace {

std::vector<std::vector<double>> Coins(int count) {
  SeededRandom random(3);
  std::vector<std::vector<double>> scores;
  for (int i = 0; i < count; ++i) {
    scores.push_back({random.Uniform() < 0.3 ? 1.0 : 0.0, 2.0});
  }
  return scores;
}

TEST(BootstrapTest, IsTheSameForTheSameSeed) {
  const auto scores = Coins(50);
  const Figure figures[] = {MeanFigure("a", "a", true, 0)};
  const Interval one = Bootstrap(scores, figures, 500, 1)[0];
  const Interval two = Bootstrap(scores, figures, 500, 1)[0];
  const Interval other = Bootstrap(scores, figures, 500, 2)[0];
  EXPECT_EQ(one.low, two.low);
  EXPECT_EQ(one.high, two.high);
  EXPECT_TRUE(one.low != other.low || one.high != other.high);
  EXPECT_EQ(one.value, other.value);
}

TEST(BootstrapTest, IntervalOfAMeanIsTheNormalOne) {
  const auto scores = Coins(1000);
  const Figure figures[] = {MeanFigure("a", "a", true, 0),
                            MeanFigure("constant", "c", true, 1, 10)};
  const std::vector<Interval> found = Bootstrap(scores, figures, 4000, 1);
  const double p = found[0].value;
  EXPECT_NEAR(p, 0.3, 0.05);
  const double half = 1.96 * std::sqrt(p * (1 - p) / 1000);
  EXPECT_NEAR(found[0].low, p - half, half / 8);
  EXPECT_NEAR(found[0].high, p + half, half / 8);
  EXPECT_EQ(found[1].low, 20);
  EXPECT_EQ(found[1].high, 20);
}

TEST(BootstrapTest, FiguresOfSumsAreNotMeansOfFigures) {
  // A ratio of sums: (1 + 1) / (1 + 9), not the mean of 1 and 1/9.
  const Figure ratio{"r",
                     "r",
                     true,
                     3,
                     true,
                     [](std::span<const double> sums, double) {
                       return sums[0] / sums[1]; }};
  const std::vector<std::vector<double>> scores = {{1, 1}, {1, 9}};
  const Interval found =
      Bootstrap(scores, std::span<const Figure>(&ratio, 1), 500, 1)[0];
  EXPECT_DOUBLE_EQ(found.value, 0.2);
  EXPECT_DOUBLE_EQ(found.low, 1.0 / 9);
  EXPECT_DOUBLE_EQ(found.high, 1);
}

TEST(BootstrapTest, DifferencesOnTheSameItemsCancelWhatIsCommon) {
  auto a = Coins(100), b = a;
  for (auto& scores : a) scores[0] += 0.25;
  const Figure figures[] = {MeanFigure("a", "a", true, 0)};
  const Interval found = BootstrapDifference(a, b, figures, 500, 1)[0];
  EXPECT_NEAR(found.value, 0.25, 1e-12);
  EXPECT_NEAR(found.low, 0.25, 1e-12);
  EXPECT_NEAR(found.high, 0.25, 1e-12);
  EXPECT_LT(Bootstrap(a, figures, 500, 1)[0].low, 0.5);
}

TEST(IntervalTest, TouchingIntervalsAreNotApart) {
  EXPECT_FALSE((Interval{1, 0, 2}.Apart({3, 2, 4})));
  EXPECT_TRUE((Interval{1, 0, 2}.Apart({3, 2.1, 4})));
  EXPECT_TRUE((Interval{3, 2.1, 4}.Apart({1, 0, 2})));
}

}  // namespace
}  // namespace limpid::evaluate
