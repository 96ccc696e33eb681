// SPDX-License-Identifier: Apache-2.0
//
// What is folded of all sequences of a batch at once is what each of them folds
// by itself, whatever others ask for. On GPUs, too, where there are any.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/models/factored_attention.h"
#include "server/reduce/sinks.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

constexpr double kTolerance = 1e-5;  // relative L2

double Distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm().clamp_min(1e-30)).item().toDouble();
}

std::vector<at::Device> Devices() {
  std::vector<at::Device> devices = {at::kCPU};
  if (at::globalContext().hasCUDA()) devices.emplace_back(at::kCUDA, 0);
  return devices;
}

constexpr int64_t kSequences = 3, kLength = 140, kChannels = 12;

// Of all sequences, [B, L, ...].
struct Sizes {
  int64_t sequences = kSequences;
  int64_t length = kLength;
};

DirectionTrace RandomDirection(at::TensorOptions options, Sizes sizes) {
  constexpr int64_t kStates = 5, kTaps = 3;
  const auto random = [&](at::IntArrayRef shape) {
    return at::rand(shape, options) * 2 - 1;
  };
  const auto of_all = [&](int64_t size) {
    return random({sizes.sequences, sizes.length, size});
  };
  DirectionTrace direction;
  direction.recurrence = MakeS6Operator(
      {of_all(kChannels).abs() * 0.3, random({kChannels, kStates}).abs().neg(),
       of_all(kStates), of_all(kStates), random({kChannels})});
  direction.conv_weight = random({kChannels, kTaps});
  direction.conv_bias = random({kChannels});
  direction.conv = of_all(kChannels);
  direction.ratio = of_all(kChannels).abs();
  return direction;
}

// Blocks of one direction or two. Their output is none that the matrices give,
// so that errors are numbers of every size.
BlockTrace RandomTrace(bool both_ways, at::Device device, Sizes sizes = {}) {
  at::manual_seed(3);
  const auto options = at::TensorOptions(device).dtype(at::kFloat);
  BlockTrace trace;
  trace.directions.push_back(RandomDirection(options, sizes));
  if (both_ways) {
    trace.directions.push_back(RandomDirection(options, sizes));
    trace.directions.back().reversed = true;
    trace.scale = 0.5;
  }
  const auto random = [&] {
    return at::randn({sizes.sequences, sizes.length, kChannels}, options);
  };
  trace.x = random();
  trace.gate = random();
  trace.output = random();
  trace.projection.weight = at::randn({6, kChannels}, options);
  trace.stream = at::randn({sizes.sequences, sizes.length, 6}, options);
  return trace;
}

struct Reduced {
  at::Tensor matrix, error;
};

Reduced Reduce(const BlockAttention& attention, AttentionForm form,
               ChannelReduction reduction) {
  const RowRange rows{0, attention.num_positions()};
  const MatrixForm whole{form, DefaultIncludeSkip(form)};
  ChannelReducer reducer(reduction, attention, rows);
  ReconstructionMeter meter(attention, whole, rows);
  EXPECT_TRUE(
      ReduceChannels(attention, whole, rows, {&reducer}, &meter, CancelToken())
          .ok());
  return {reducer.Finish(), meter.Finish()};
}

TEST(BatchedFoldsTest, EverySequenceGetsWhatItAsksFor) {
  // Pairs of neighbours differ in one thing only.
  constexpr std::pair<AttentionForm, ChannelReduction> kAsked[] = {
      {AttentionForm::kFull, ChannelReduction::kMeanAbs},
      {AttentionForm::kFull, ChannelReduction::kMean},
      {AttentionForm::kFull, ChannelReduction::kPosMean},
      {AttentionForm::kNoGate, ChannelReduction::kPosMean},
      {AttentionForm::kUpstream, ChannelReduction::kPosMean},
      {AttentionForm::kUpstream, ChannelReduction::kL2},
      {AttentionForm::kNoActivation, ChannelReduction::kWnorm},
      {AttentionForm::kFull, ChannelReduction::kMax},
      {AttentionForm::kFull, ChannelReduction::kMin}};
  constexpr int64_t kCount = std::size(kAsked);
  for (const at::Device device : Devices()) {
    for (const bool both_ways : {false, true}) {
      const BlockBatch batch(RandomTrace(both_ways, device));
      for (int64_t i = 0; i < kCount * kSequences; ++i) {
        // Once something else than the one before, and once the same.
        const int64_t sequence = i % kSequences;
        for (const int64_t asked : {i % kCount, i / kSequences}) {
          const auto [form, reduction] = kAsked[asked];
          SCOPED_TRACE(absl::StrCat(
              device.str(), ", directions ", both_ways ? 2 : 1, ", sequence ",
              sequence, ", ", FormName(form), ", ", ReductionName(reduction)));
          const Reduced together =
              Reduce(FactoredAttention(batch, sequence), form, reduction);
          const Reduced alone = Reduce(
              FactoredAttention(SequencesOf(batch.all(), Packing(), sequence)),
              form, reduction);
          EXPECT_LE(Distance(together.matrix, alone.matrix), kTolerance);
          EXPECT_LE(Distance(together.error, alone.error), kTolerance);
          EXPECT_GT(alone.error.item().toDouble(), 0.1);
        }
      }
    }
  }
}

// Equally long neighbours among packed sequences are a batch.
TEST(BatchedFoldsTest, EquallyLongOnesOfPackedSequencesFoldTogether) {
  const std::vector<int64_t> lengths = {1, 70, 70, 70, 33};
  const Packing packing(lengths);
  for (const at::Device device : Devices()) {
    const BlockTrace all =
        RandomTrace(/*both_ways=*/false, device, {1, 1 + 3 * 70 + 33});
    const BlockBatch batch(SequencesOf(all, packing, 1, 3));
    for (int64_t i = 0; i < 3; ++i) {
      SCOPED_TRACE(absl::StrCat(device.str(), ", sequence ", 1 + i));
      const Reduced together =
          Reduce(FactoredAttention(batch, i), AttentionForm::kFull,
                 ChannelReduction::kMeanAbs);
      const Reduced alone =
          Reduce(FactoredAttention(SequencesOf(all, packing, 1 + i)),
                 AttentionForm::kFull, ChannelReduction::kMeanAbs);
      EXPECT_LE(Distance(together.matrix, alone.matrix), kTolerance);
      EXPECT_LE(Distance(together.error, alone.error), kTolerance);
    }
  }
}

TEST(BatchedFoldsTest, MeasureAlsoAfterOneThatDidNot) {
  const BlockBatch batch(RandomTrace(/*both_ways=*/true, at::kCPU));
  const MatrixFold fold{MatrixForm(), kernels::ChannelFold::kSumAbs,
                        FoldFinish::kMean};
  const auto first =
      FactoredAttention(batch, 0).Fold(fold, false, CancelToken());
  ASSERT_TRUE(first.has_value());
  EXPECT_FALSE(first->error.defined());
  const auto second =
      FactoredAttention(batch, 1).Fold(fold, true, CancelToken());
  ASSERT_TRUE(second.has_value());
  EXPECT_TRUE(second->error.defined());
}

TEST(BatchedFoldsTest, OthersGetNothingOfOneThatWasCancelled) {
  const BlockBatch batch(RandomTrace(/*both_ways=*/false, at::kCPU));
  const MatrixFold fold{MatrixForm(), kernels::ChannelFold::kSumAbs,
                        FoldFinish::kMean};
  CancelToken cancel;
  cancel.Cancel();
  ASSERT_TRUE(FactoredAttention(batch, 0).Fold(fold, false, cancel));
  const auto other =
      FactoredAttention(batch, 1).Fold(fold, false, CancelToken());
  const auto alone = FactoredAttention(SequencesOf(batch.all(), Packing(), 1))
                         .Fold(fold, false, CancelToken());
  ASSERT_TRUE(other && alone);
  EXPECT_LE(Distance(other->matrix, alone->matrix), kTolerance);
}

// Matrices and errors of all layers and sequences.
std::vector<Reduced> ReduceAll(const Network& network, const NetworkInput& in) {
  std::vector<Reduced> all;
  const at::Tensor embeddings = network.Embed(in);
  const int64_t last = embeddings.size(1) - 1;
  EXPECT_TRUE(network
                  .Forward(
                      embeddings, {last},
                      [&](int64_t, int64_t, const BlockAttention& block) {
                        all.push_back(Reduce(block, AttentionForm::kFull,
                                             ChannelReduction::kMeanAbs));
                        return absl::OkStatus();
                      },
                      CancelToken())
                  .ok());
  return all;
}

TEST(BatchedFoldsTest, BatchesOfEveryNetworkAreTheirSequences) {
  for (const at::Device device : Devices()) {
    for (const testing::TinyCase& tiny : testing::TinyCases()) {
      const auto network = testing::MakeRandomNetwork(tiny, at::kFloat,
                                                      /*seed=*/5, {}, device);
      ASSERT_NE(network, nullptr) << tiny.name;
      for (const int64_t length : testing::LengthsOf(*network, {3, 130})) {
        SCOPED_TRACE(
            absl::StrCat(tiny.name, " on ", device.str(), ", L = ", length));
        const NetworkInput all =
            testing::RandomInput(*network, kSequences, length, /*seed=*/6);
        const std::vector<Reduced> together = ReduceAll(*network, all);
        ASSERT_EQ(std::ssize(together),
                  kSequences * network->info().num_layers);
        for (int64_t s = 0; s < kSequences; ++s) {
          const auto one = [&](const at::Tensor& tensor) {
            return tensor.defined() ? tensor.narrow(0, s, 1) : tensor;
          };
          const std::vector<Reduced> alone =
              ReduceAll(*network, {one(all.token_ids), one(all.pixels)});
          for (size_t layer = 0; layer < alone.size(); ++layer) {
            const Reduced& of_batch = together[layer * kSequences + s];
            EXPECT_LE(Distance(of_batch.matrix, alone[layer].matrix),
                      kTolerance);
            EXPECT_LE(of_batch.error.item().toDouble(), 1e-4);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace limpid
