// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/reference/ssm.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {
namespace {

constexpr ChannelFold kFolds[] = {
    ChannelFold::kSum,           ChannelFold::kSumAbs,
    ChannelFold::kSumPositive,   ChannelFold::kSumSquares,
    ChannelFold::kMax,           ChannelFold::kMin,
    ChannelFold::kWeightedSumAbs};

template <typename T>
class FoldChannelsTest : public testing::Test {};
TYPED_TEST_SUITE(FoldChannelsTest, Precisions);

TYPED_TEST(FoldChannelsTest, MatchesReferenceAndContinues) {
  using T = TypeParam;
  for (const ChannelFold fold : kFolds) {
    for (const int64_t entries : {1, 7, 1024, 2049}) {
      SCOPED_TRACE(absl::StrCat("fold ", static_cast<int>(fold), ", ", entries,
                                " entries"));
      constexpr int64_t kChannels = 5;
      std::mt19937_64 g(1);
      const auto slab = Values<T>::Random(kChannels * entries, -1, 1, g);
      const auto weight = Values<T>::Random(kChannels, 0, 1, g);
      const auto start = Values<T>::Random(entries, -1, 1, g);
      std::vector<double> expected(start.exact(), start.exact() + entries);
      reference::Run(FoldChannels<double>{fold, kChannels, entries,
                                          slab.exact(), weight.exact(),
                                          expected.data(), entries});
      ForEachSimdWidth([&] {
        std::vector<T> actual(start.data(), start.data() + entries);
        // In two parts, as slabs come.
        ASSERT_TRUE(
            cpu::Run(FoldChannels<T>{fold, 2, entries, slab.data(),
                                     weight.data(), actual.data(), entries})
                .ok());
        FoldChannels<T> rest{fold,
                             kChannels - 2,
                             entries / 2,
                             slab.data() + 2 * entries,
                             weight.data() + 2,
                             actual.data(),
                             entries};
        // And those in two shares of entries.
        ASSERT_TRUE(cpu::Run(rest).ok());
        rest.slab += entries / 2;
        rest.accumulator += entries / 2;
        rest.num_entries = entries - entries / 2;
        ASSERT_TRUE(cpu::Run(rest).ok());
        EXPECT_TRUE(Near(actual, expected));
      });
    }
  }
}

TYPED_TEST(FoldChannelsTest, ExtremesStartAtInfinity) {
  using T = TypeParam;
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  const std::vector<T> slab = {-3, 2, -1, -5};
  std::vector<T> max(2, -kInfinity), min(2, kInfinity);
  ASSERT_TRUE(cpu::Run(FoldChannels<T>{ChannelFold::kMax, 2, 2, slab.data(),
                                       nullptr, max.data(), 2})
                  .ok());
  ASSERT_TRUE(cpu::Run(FoldChannels<T>{ChannelFold::kMin, 2, 2, slab.data(),
                                       nullptr, min.data(), 2})
                  .ok());
  EXPECT_EQ(max, (std::vector<T>{-1, 2}));
  EXPECT_EQ(min, (std::vector<T>{-3, -5}));
}

}  // namespace
}  // namespace limpid::kernels
