// SPDX-License-Identifier: Apache-2.0
//
// On a GPU the matrices that blocks fold by themselves are those of their
// slabs, for every architecture that does so. Skipped without a GPU.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "server/reduce/sinks.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

// Largest difference as a part of the largest number.
double Difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max().clamp_min(1e-30))
      .item()
      .toDouble();
}

TEST(DeviceFoldsTest, EqualTheirSlabs) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  int64_t folded = 0;
  for (const testing::TinyCase& tiny : testing::TinyCases()) {
    const auto network = testing::MakeRandomNetwork(
        tiny, at::kFloat, /*seed=*/5, {}, at::Device(at::kCUDA, 0));
    ASSERT_NE(network, nullptr) << tiny.name;
    for (const int64_t length : testing::LengthsOf(*network, {3, 130, 300})) {
      const NetworkInput input =
          testing::RandomInput(*network, 1, length, /*seed=*/6);
      const auto visitor = [&](int64_t layer, int64_t,
                               const BlockAttention& attention) {
        SCOPED_TRACE(
            absl::StrCat(tiny.name, ", L = ", length, ", layer ", layer));
        const RowRange rows{0, length};
        for (const ChannelReduction reduction :
             {ChannelReduction::kMeanAbs, ChannelReduction::kMean,
              ChannelReduction::kMeanPos, ChannelReduction::kMax,
              ChannelReduction::kMin, ChannelReduction::kL2,
              ChannelReduction::kWnorm}) {
          const MatrixForm form;
          ChannelReducer by_itself(reduction, attention, rows);
          ChannelReducer of_slabs(reduction, attention, rows);
          ReconstructionMeter meter(attention.Map(form), rows);
          AttentionFold probe = by_itself.Target();
          probe.matrix = probe.matrix.clone();
          // Others would be compared with themselves.
          if (!attention.Fold(form, probe)) continue;
          ++folded;
          EXPECT_TRUE(ReduceChannels(attention, form, rows, {&by_itself},
                                     &meter, CancelToken())
                          .ok());
          EXPECT_TRUE(
              attention.Visit(form, rows, of_slabs, CancelToken()).ok());
          EXPECT_LE(Difference(by_itself.Finish(), of_slabs.Finish()), 1e-5)
              << ReductionName(reduction);
          EXPECT_LE(meter.Finish(), 1e-5);
        }
        return absl::OkStatus();
      };
      ASSERT_TRUE(network
                      ->Forward(network->Embed(input), {length - 1}, visitor,
                                CancelToken())
                      .ok());
    }
  }
  // Mamba, Vision Mamba, Griffin and RWKV-4 at least.
  EXPECT_GT(folded, 0);
  std::printf("figure: %lld matrices folded by their blocks\n",
              static_cast<long long>(folded));
}

}  // namespace
}  // namespace limpid
