// SPDX-License-Identifier: Apache-2.0
//
// The matrices and rows that blocks fold by themselves are those of their
// slabs, for every architecture that does so.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <algorithm>
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

constexpr ChannelReduction kReductions[] = {
    ChannelReduction::kMeanAbs, ChannelReduction::kMean,
    ChannelReduction::kMeanPos, ChannelReduction::kMax,
    ChannelReduction::kMin,     ChannelReduction::kL2,
    ChannelReduction::kWnorm};

// Whether the block folds these rows by itself.
bool Folds(const BlockAttention& attention, RowRange rows,
           ChannelReduction reduction) {
  ChannelReducer probe(reduction, attention, rows);
  if (rows.size() == attention.num_positions()) {
    return attention
        .Fold(probe.WholeOf(MatrixForm()), /*measures=*/false, CancelToken())
        .has_value();
  }
  return attention.FoldRows(MatrixForm(), rows, probe.Target(), nullptr);
}

// How many of all reductions were compared.
int64_t CompareWithSlabs(const BlockAttention& attention, RowRange rows) {
  int64_t compared = 0;
  for (const ChannelReduction reduction : kReductions) {
    const MatrixForm form;
    // Others would be compared with themselves.
    if (!Folds(attention, rows, reduction)) continue;
    ++compared;
    ChannelReducer by_itself(reduction, attention, rows);
    ChannelReducer of_slabs(reduction, attention, rows);
    ReconstructionMeter meter(attention, form, rows);
    ReconstructionMeter meter_of_slabs(attention, form, rows);
    EXPECT_TRUE(ReduceChannels(attention, form, rows, {&by_itself}, &meter,
                               CancelToken())
                    .ok());
    SinkList sinks;
    sinks.Add(&of_slabs);
    sinks.Add(&meter_of_slabs);
    EXPECT_TRUE(attention.Visit(form, rows, sinks, CancelToken()).ok());
    EXPECT_LE(Difference(by_itself.Finish(), of_slabs.Finish()), 1e-5)
        << ReductionName(reduction) << ", rows from " << rows.begin;
    // Where products nearly cancel, slabs lose digits, too.
    const double of_slab = meter_of_slabs.Finish().item().toDouble();
    EXPECT_LE(of_slab, 3e-5);
    EXPECT_LE(meter.Finish().item().toDouble(), std::max(1e-5, 1.5 * of_slab));
  }
  return compared;
}

void ExpectFoldsEqualSlabs(at::Device device) {
  int64_t matrices = 0, rows = 0;
  for (const testing::TinyCase& tiny : testing::TinyCases()) {
    const auto network = testing::MakeRandomNetwork(tiny, at::kFloat,
                                                    /*seed=*/5, {}, device);
    ASSERT_NE(network, nullptr) << tiny.name;
    for (const int64_t length : testing::LengthsOf(*network, {3, 130, 300})) {
      const NetworkInput input =
          testing::RandomInput(*network, 1, length, /*seed=*/6);
      const auto visitor = [&](int64_t layer, int64_t,
                               const BlockAttention& attention) {
        SCOPED_TRACE(
            absl::StrCat(tiny.name, ", L = ", length, ", layer ", layer));
        matrices += CompareWithSlabs(attention, {0, length});
        for (const RowRange few :
             {RowRange{length - 1, length},
              RowRange{length / 2, std::min(length, length / 2 + 8)}}) {
          rows += CompareWithSlabs(attention, few);
        }
        return absl::OkStatus();
      };
      ASSERT_TRUE(network
                      ->Forward(network->Embed(input), {length - 1}, visitor,
                                CancelToken())
                      .ok());
    }
  }
  // Mamba's at least.
  EXPECT_GT(matrices, 0);
  EXPECT_GT(rows, 0);
  std::printf("figure: %s: %lld matrices, %lld rows folded by their blocks\n",
              device.str().c_str(), static_cast<long long>(matrices),
              static_cast<long long>(rows));
}

TEST(DeviceFoldsTest, EqualTheirSlabsOnTheCpu) {
  ExpectFoldsEqualSlabs(at::kCPU);
}

TEST(DeviceFoldsTest, EqualTheirSlabsOnAGpu) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  ExpectFoldsEqualSlabs(at::Device(at::kCUDA, 0));
}

TEST(DeviceFoldsTest, StopWhenCancelled) {
  const testing::TinyCase tiny = testing::TinyCases().front();
  const auto network =
      testing::MakeRandomNetwork(tiny, at::kFloat, /*seed=*/5, {}, at::kCPU);
  CancelToken cancel;
  const auto visitor = [&](int64_t, int64_t, const BlockAttention& attention) {
    const RowRange rows{0, attention.num_positions()};
    ChannelReducer reducer(ChannelReduction::kMeanAbs, attention, rows);
    cancel.Cancel();
    const auto folded = attention.Fold(reducer.WholeOf(MatrixForm()),
                                       /*measures=*/false, cancel);
    EXPECT_TRUE(folded.has_value());
    EXPECT_EQ(folded->matrix.abs().max().item().toDouble(), 0) << "went on";
    return ReduceChannels(attention, MatrixForm(), rows, {&reducer}, nullptr,
                          cancel);
  };
  const NetworkInput input = testing::RandomInput(*network, 1, 40, /*seed=*/6);
  EXPECT_EQ(network->Forward(network->Embed(input), {0}, visitor, CancelToken())
                .status()
                .code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace limpid
