// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/metrics.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "client/evaluate/seeded_random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace limpid::evaluate {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::Pointwise;

TEST(MetricsTest, TrapezoidOfALineIsExactOnUnevenPoints) {
  const double x[] = {0, 0.1, 0.5, 1}, y[] = {1, 1.2, 2, 3};
  EXPECT_DOUBLE_EQ(TrapezoidArea(x, y), 2.0);
}

TEST(MetricsTest, TenthsAreRoundedUpWithoutFloatingPoint) {
  EXPECT_EQ(CountOfTenths(0, 7), 0u);
  EXPECT_EQ(CountOfTenths(1, 7), 1u);
  EXPECT_EQ(CountOfTenths(3, 10), 3u);  // 0.3 * 10 is above 3 in binary
  EXPECT_EQ(CountOfTenths(7, 10), 7u);
  EXPECT_EQ(CountOfTenths(10, 7), 7u);
}

TEST(MetricsTest, TiesAreOrderedByTheSeedAndNotByPlace) {
  const float values[] = {1, 5, 1, 1, 1};
  std::set<size_t> second;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<size_t> order = DescendingOrder(values, seed);
    EXPECT_EQ(order, DescendingOrder(values, seed));
    EXPECT_EQ(order[0], 1u);
    second.insert(order[1]);
  }
  EXPECT_EQ(second, (std::set<size_t>{0, 2, 3, 4}));
}

TEST(MetricsTest, RanksOfTiesAreTheirMean) {
  const double values[] = {10, 20, 20, 5, 20};
  EXPECT_THAT(AverageRanks(values), ElementsAre(2, 4, 4, 1, 4));
}

TEST(MetricsTest, SpearmanWithTiesIsPearsonOfTheRanks) {
  // Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: covariance 4.5, squares 4.5 and 5.
  const double a[] = {1, 2, 2, 3}, b[] = {1, 30, 20, 40};
  EXPECT_DOUBLE_EQ(Spearman(a, b), 4.5 / std::sqrt(4.5 * 5));
  const double down[] = {9, 4, 1, 0};
  EXPECT_DOUBLE_EQ(Spearman(b, std::vector<double>{1, 3, 2, 4}), 1);
  EXPECT_DOUBLE_EQ(Spearman(std::vector<double>{1, 2, 3, 4}, down), -1);
  EXPECT_EQ(Spearman(std::vector<double>{7, 7, 7, 7}, down), 0);
  EXPECT_EQ(Spearman(std::vector<double>{7}, std::vector<double>{1}), 0);
}

TEST(MetricsTest, AveragePrecisionStepsOverTiesAtOnce) {
  const uint8_t positive[] = {1, 0, 1, 0};
  // Hits at places 1 and 3.
  EXPECT_DOUBLE_EQ(AveragePrecision(std::vector<float>{4, 3, 2, 1}, positive),
                   (1.0 + 2.0 / 3) / 2);
  // The first two are one step: half of the recall at precision 1/2.
  EXPECT_DOUBLE_EQ(AveragePrecision(std::vector<float>{4, 4, 2, 1}, positive),
                   (0.5 + 2.0 / 3) / 2);
  // No order at all: the share of positives.
  EXPECT_DOUBLE_EQ(AveragePrecision(std::vector<float>{1, 1, 1, 1}, positive),
                   0.5);
  EXPECT_EQ(
      AveragePrecision(std::vector<float>{1, 2}, std::vector<uint8_t>{0, 0}),
      0);
}

TEST(MetricsTest, RocAreaCountsPairs) {
  const uint8_t positive[] = {1, 0, 1, 0};
  EXPECT_DOUBLE_EQ(RocArea(std::vector<float>{4, 3, 2, 1}, positive), 0.75);
  EXPECT_DOUBLE_EQ(RocArea(std::vector<float>{2, 2, 2, 2}, positive), 0.5);
  EXPECT_DOUBLE_EQ(RocArea(std::vector<float>{4, 1, 3, 2}, positive), 1);
  EXPECT_EQ(RocArea(std::vector<float>{1}, std::vector<uint8_t>{1}), 0.5);
}

TEST(MetricsTest, PrecisionAtKSharesPlacesAmongTies) {
  const double scores[] = {9, 5, 5, 1};
  const uint8_t positive[] = {0, 1, 0, 1};
  EXPECT_DOUBLE_EQ(PrecisionAtK(scores, positive, 1), 0);
  EXPECT_DOUBLE_EQ(PrecisionAtK(scores, positive, 2), 0.25);
  EXPECT_DOUBLE_EQ(PrecisionAtK(scores, positive, 3), 1.0 / 3);
  EXPECT_DOUBLE_EQ(PrecisionAtK(scores, positive, 99), 0.5);
}

TEST(MetricsTest, BestRankIsTheExpectedOneAmongTies) {
  const double values[] = {9, 5, 5, 1};
  EXPECT_EQ(BestRank(values, std::vector<size_t>{0, 3}), 1);
  EXPECT_EQ(BestRank(values, std::vector<size_t>{3}), 4);
  EXPECT_EQ(BestRank(values, std::vector<size_t>{1}), 2.5);
  EXPECT_EQ(BestRank(values, std::vector<size_t>{1, 2}), 2);
}

TEST(MetricsTest, BilinearKeepsPixelCentres) {
  const float grid[] = {0, 4};
  EXPECT_THAT(ResizeBilinear(grid, 1, 2, 1, 4), ElementsAre(0, 1, 3, 4));
  EXPECT_THAT(ResizeBilinear(grid, 2, 1, 4, 1), ElementsAre(0, 1, 3, 4));
  const float same[] = {1, 2, 3, 4};
  EXPECT_THAT(ResizeBilinear(same, 2, 2, 2, 2), ElementsAre(1, 2, 3, 4));
}

TEST(MetricsTest, ScalingAndSoftmax) {
  EXPECT_THAT(MinMax(std::vector<float>{-1, 0, 3}), ElementsAre(0, 0.25, 1));
  EXPECT_THAT(MinMax(std::vector<float>{2, 2}), ElementsAre(0, 0));
  EXPECT_THAT(Softmax(std::vector<float>{1000, 1000 + std::log(3.0F)}),
              Pointwise(DoubleNear(1e-5), {0.25, 0.75}));
}

TEST(SeededRandomTest, NumbersDependOnTheSeedAlone) {
  EXPECT_NE(MixSeed(1, {"a", "b"}), MixSeed(1, {"ab", ""}));
  EXPECT_NE(MixSeed(1, {"a"}), MixSeed(2, {"a"}));
  SeededRandom one(7), two(7);
  std::vector<int> counts(5);
  for (int i = 0; i < 5000; ++i) {
    const size_t drawn = one.Below(5);
    EXPECT_EQ(drawn, two.Below(5));
    ++counts[drawn];
  }
  // Six standard deviations.
  for (const int count : counts) EXPECT_NEAR(count, 1000, 170);
  std::vector<int> order = {0, 1, 2, 3, 4, 5, 6, 7};
  one.Shuffle(order);
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

}  // namespace
}  // namespace limpid::evaluate
