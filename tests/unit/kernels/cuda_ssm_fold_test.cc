// SPDX-License-Identifier: Apache-2.0
//
// SsmAttentionFold against the matrices of the CPU in double precision. Needs a
// GPU; skipped without.
#include <cstdint>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/unit/kernels/device_inputs.h"
#include "tests/unit/kernels/fold_testing.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {
namespace {

// `attention` in double precision. `conv_bias` may be null.
ExpectedFolds Expected(SsmAttention<double> attention, ChannelFold fold,
                       const double* weight, const double* value,
                       int64_t value_stride, const double* conv_bias) {
  const int64_t length = attention.ssm.num_positions;
  const int64_t channels = attention.ssm.num_channels;
  ExpectedFolds out(fold, length, channels);
  std::vector<double> entries(length * length);
  attention.out = entries.data();
  for (int64_t c = 0; c < channels; ++c) {
    attention.channel_begin = c;
    attention.channel_end = c + 1;
    EXPECT_TRUE(cpu::Run(attention).ok());
    out.Add(c, entries, weight, value, value_stride);
    if (conv_bias == nullptr) continue;
    // What the convolution adds enters the recurrence at every position.
    SsmAttention<double> plain = attention;
    plain.conv_weight = nullptr;
    EXPECT_TRUE(cpu::Run(plain).ok());
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        out.product[i * channels + c] += entries[i * length + j] * conv_bias[c];
      }
    }
  }
  return out;
}

class CudaSsmFoldTest : public GpuTest {
 protected:
  // Runs an op with pointers of the host; checks that it says how much scratch
  // it takes.
  void Fold(const Inputs<float>& in, const SsmAttention<float>& attention,
            ChannelFold fold, const Values<float>& weight,
            std::vector<float>& matrix, std::vector<float>& product) {
    const int64_t length = in.sizes.positions, channels = in.sizes.channels;
    const DeviceInputs<float> device(in);
    const OnDevice<float> weights(weight.data(), channels);
    const OnDevice<float> accumulator(
        std::vector<float>(length * length, static_cast<float>(StartOf(fold))));
    const OnDevice<float> products(std::vector<float>(length * channels, -7));
    SsmAttentionFold<float> op;
    op.attention = device.Move(attention);
    op.fold = fold;
    op.weight = weights.data();
    op.accumulator = accumulator.data();
    op.value = device.u.data();
    op.value_stride = in.stride;
    op.conv_bias = has_bias_ ? device.conv_bias.data() : nullptr;
    op.product = products.data();
    op.portable = portable_;
    RunFold(op);
    matrix = accumulator.Fetch();
    product = products.Fetch();
  }

  void ExpectMatches(const Inputs<float>& in,
                     const SsmAttention<float>& attention,
                     const SsmAttention<double>& exact, ChannelFold fold,
                     double tolerance = 2e-6) {
    std::mt19937_64 g(7);
    const auto weight = Values<float>::Random(in.sizes.channels, 0, 1, g);
    std::vector<float> matrix, product, matrix_again, product_again;
    Fold(in, attention, fold, weight, matrix, product);
    if (HasFatalFailure()) return;
    const ExpectedFolds expected =
        Expected(exact, fold, weight.exact(), in.u.exact(), in.stride,
                 has_bias_ ? in.conv_bias.exact() : nullptr);
    EXPECT_LE(RelativeError(matrix, expected.matrix), tolerance);
    EXPECT_LE(RelativeError(product, expected.product), tolerance);
    EXPECT_TRUE(Near(matrix, expected.matrix, 2 * tolerance));
    Fold(in, attention, fold, weight, matrix_again, product_again);
    EXPECT_EQ(matrix, matrix_again) << "not deterministic";
    EXPECT_EQ(product, product_again) << "not deterministic";
  }

  bool portable_ = false;
  bool has_bias_ = true;
};

// Sequences one after the other, with a few positions of nobody's in between.
class CudaSsmFoldBatchTest : public CudaSsmFoldTest {
 protected:
  static constexpr int64_t kGap = 3;

  template <typename T>
  static SsmAttention<T> Leading(SsmAttention<T> attention, int64_t length) {
    attention.ssm.num_positions = length;
    attention.row_end = length;
    return attention;
  }
  template <typename T>
  static SsmAttention<T> Sequence(const Inputs<float>& in,
                                  SsmAttention<T> attention, int64_t index) {
    const int64_t begin = index * (attention.ssm.num_positions + kGap);
    attention.ssm.delta += begin * in.stride;
    attention.ssm.b += begin * in.state_stride;
    attention.ssm.c += begin * in.state_stride;
    attention.source_scale += begin * in.stride;
    attention.row_scale += begin * in.stride;
    return attention;
  }

  struct Folded {
    std::vector<float> matrix, product;
  };
  // Folds sequences [begin, begin + count) in one call, or in one for each of
  // `calls` ranges of channels.
  Folded Fold(const Inputs<float>& in, const DeviceInputs<float>& device,
              int64_t length, int64_t begin, int64_t count, ChannelFold fold,
              int64_t calls = 1) const {
    const int64_t channels = in.sizes.channels;
    const int64_t step = (length + kGap) * in.stride;
    const int64_t state_step = (length + kGap) * in.state_stride;
    const OnDevice<float> accumulator(std::vector<float>(
        count * length * length, static_cast<float>(StartOf(fold))));
    const OnDevice<float> products(
        std::vector<float>(count * length * channels, -7));
    SsmAttentionFold<float> op;
    op.attention =
        Sequence(in, device.Move(Leading(in.Attention(), length)), begin);
    op.num_sequences = count;
    op.sequence_strides = {step, state_step, state_step, step, step, step};
    op.fold = fold;
    op.accumulator = accumulator.data();
    op.value = device.u.data() + begin * step;
    op.value_stride = in.stride;
    op.conv_bias = device.conv_bias.data();
    op.product = products.data();
    op.portable = portable_;
    for (int64_t call = 0; call < calls; ++call) {
      op.attention.channel_begin = channels * call / calls;
      op.attention.channel_end = channels * (call + 1) / calls;
      RunFold(op);
    }
    return {accumulator.Fetch(), products.Fetch()};
  }

  static int64_t ScratchBytes(const Inputs<float>& in, int64_t sequences,
                              int64_t length, int64_t channels) {
    SsmAttentionFold<float> op;
    op.attention = Leading(in.Attention(), length);
    op.attention.channel_end = channels;
    op.num_sequences = sequences;
    float product = 0;
    op.product = &product;
    return cuda::FoldScratchBytes(op);
  }

  static Inputs<float> InputsOf(int64_t sequences, int64_t length,
                                int64_t channels) {
    return Inputs<float>({sequences * (length + kGap), channels, 16, 4});
  }

  // All at once against each by itself.
  void ExpectAsAlone(const Inputs<float>& in, int64_t sequences, int64_t length,
                     ChannelFold fold) const {
    const DeviceInputs<float> device(in);
    const Folded all = Fold(in, device, length, 0, sequences, fold);
    const Folded again = Fold(in, device, length, 0, sequences, fold);
    EXPECT_EQ(all.matrix, again.matrix) << "not deterministic";
    EXPECT_EQ(all.product, again.product) << "not deterministic";
    for (int64_t s = 0; s < sequences; ++s) {
      const Folded alone = Fold(in, device, length, s, 1, fold);
      EXPECT_LE(
          RelativeError(Part(all.matrix, s, sequences), ToDouble(alone.matrix)),
          1e-6);
      EXPECT_LE(RelativeError(Part(all.product, s, sequences),
                              ToDouble(alone.product)),
                1e-6);
    }
  }
  static std::vector<float> Part(const std::vector<float>& all, int64_t index,
                                 int64_t count) {
    const auto size = static_cast<int64_t>(all.size()) / count;
    return {all.begin() + index * size, all.begin() + (index + 1) * size};
  }
};

TEST_F(CudaSsmFoldTest, MatchesTheCpuAtBordersOfBlocks) {
  for (const int64_t length : {1, 2, 15, 16, 17, 31, 125, 126, 127, 128, 129,
                               131, 132, 256, 257, 300, 1023, 1024}) {
    const Inputs<float> in({length, 37, 16, 4});
    SCOPED_TRACE(in.sizes.ToString());
    ExpectMatches(in, in.Attention(), in.ExactAttention(),
                  ChannelFold::kSumAbs);
  }
}

// Where a last block is short, channels must come by eights.
TEST_F(CudaSsmFoldTest, MatchesTheCpuAtBordersOfShortBlocks) {
  for (const int64_t length :
       {1, 8, 9, 63, 64, 65, 71, 72, 73, 191, 192, 193, 197, 200, 201, 320}) {
    for (const int64_t channels : {8, 40}) {
      const Inputs<float> in({length, channels, 16, 4});
      SCOPED_TRACE(in.sizes.ToString());
      ExpectMatches(in, in.Attention(), in.ExactAttention(),
                    ChannelFold::kSumAbs);
    }
  }
  // As many splits as there can be.
  for (const int64_t length : {70, 197}) {
    const Inputs<float> in({length, 1544, 16, 4});
    SCOPED_TRACE(in.sizes.ToString());
    ExpectMatches(in, in.Attention(), in.ExactAttention(),
                  ChannelFold::kSumAbs);
  }
}

TEST_F(CudaSsmFoldTest, EveryFoldOfShortBlocks) {
  for (const ChannelFold fold : kFolds) {
    SCOPED_TRACE(absl::StrCat("fold ", static_cast<int>(fold)));
    const Inputs<float> in({197, 48, 16, 4});
    ExpectMatches(in, in.Attention(), in.ExactAttention(), fold);
  }
}

TEST_F(CudaSsmFoldTest, EveryFoldOnEveryGpu) {
  for (const bool portable : {false, true}) {
    portable_ = portable;
    for (const ChannelFold fold : kFolds) {
      SCOPED_TRACE(absl::StrCat("fold ", static_cast<int>(fold), ", portable ",
                                portable));
      const Inputs<float> in({300, 21, 16, 4});
      ExpectMatches(in, in.Attention(), in.ExactAttention(), fold);
    }
  }
}

TEST_F(CudaSsmFoldTest, PortableTilesMatchAtBordersOfBlocks) {
  portable_ = true;
  for (const int64_t length : {129, 257, 1023, 1024}) {
    const Inputs<float> in({length, 37, 16, 4});
    SCOPED_TRACE(in.sizes.ToString());
    ExpectMatches(in, in.Attention(), in.ExactAttention(),
                  ChannelFold::kSumAbs);
  }
}

TEST_F(CudaSsmFoldTest, FewStatesChannelsAndTaps) {
  for (const Sizes& sizes : {Sizes{200, 1, 1, 1}, Sizes{200, 5, 5, 2},
                             Sizes{200, 19, 8, 3}, Sizes{520, 130, 15, 4}}) {
    SCOPED_TRACE(sizes.ToString());
    const Inputs<float> in(sizes);
    ExpectMatches(in, in.Attention(), in.ExactAttention(),
                  ChannelFold::kSumAbs);
  }
}

TEST_F(CudaSsmFoldTest, FactorsThatAreNotThere) {
  const Inputs<float> in({260, 7, 16, 4});
  const auto without = [](auto op, int factor) {
    if (factor == 0) op.source_scale = nullptr;
    if (factor == 1) op.conv_weight = nullptr;
    if (factor == 2) op.row_scale = nullptr;
    if (factor == 3) op.ssm.skip = nullptr;
    return op;
  };
  for (int factor = 0; factor < 4; ++factor) {
    SCOPED_TRACE(absl::StrCat("without factor ", factor));
    ExpectMatches(in, without(in.Attention(), factor),
                  without(in.ExactAttention(), factor), ChannelFold::kSumAbs);
  }
  has_bias_ = false;
  ExpectMatches(in, in.Attention(), in.ExactAttention(), ChannelFold::kSumAbs);
}

TEST_F(CudaSsmFoldTest, DecaysFromNoneToAll) {
  for (const auto& [max_delta, max_rate] :
       {std::pair{0.0, 8.0}, std::pair{0.001, 1.0}, std::pair{0.1, 16.0},
        std::pair{3.0, 16.0}, std::pair{50.0, 100.0}}) {
    SCOPED_TRACE(
        absl::StrCat("delta up to ", max_delta, ", rate up to ", max_rate));
    const Inputs<float> in({700, 9, 16, 4}, max_delta, max_rate);
    ExpectMatches(in, in.Attention(), in.ExactAttention(),
                  ChannelFold::kSumAbs);
  }
}

// Blocks of different sizes need different amounts of shared memory, which a
// kernel has to be allowed.
TEST_F(CudaSsmFoldTest, LaunchesOfSeveralThreadsDoNotDisturbEachOther) {
  std::vector<std::thread> threads;
  for (const int64_t channels : {37, 900, 37, 900}) {
    threads.emplace_back([this, channels] {
      const Inputs<float> in({130, channels, 16, 4});
      std::mt19937_64 g(7);
      const auto weight = Values<float>::Random(channels, 0, 1, g);
      std::vector<float> matrix, product;
      for (int i = 0; i < 50 && !HasFatalFailure(); ++i) {
        Fold(in, in.Attention(), ChannelFold::kSumAbs, weight, matrix, product);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(CudaSsmFoldBatchTest, SequencesMatchTheCpu) {
  constexpr int64_t kSequences = 3;
  for (const bool portable : {false, true}) {
    portable_ = portable;
    for (const int64_t length : {1, 125, 197, 300}) {
      SCOPED_TRACE(absl::StrCat("L=", length, ", portable ", portable));
      const Inputs<float> in = InputsOf(kSequences, length, 37);
      const DeviceInputs<float> device(in);
      const ChannelFold fold = ChannelFold::kSumAbs;
      const Folded all = Fold(in, device, length, 0, kSequences, fold);
      for (int64_t s = 0; s < kSequences; ++s) {
        const ExpectedFolds expected = Expected(
            Sequence(in, Leading(in.ExactAttention(), length), s), fold,
            in.skip.exact(), in.u.exact() + s * (length + kGap) * in.stride,
            in.stride, in.conv_bias.exact());
        EXPECT_LE(
            RelativeError(Part(all.matrix, s, kSequences), expected.matrix),
            2e-6);
        EXPECT_LE(
            RelativeError(Part(all.product, s, kSequences), expected.product),
            2e-6);
      }
    }
  }
}

TEST_F(CudaSsmFoldBatchTest, SequencesAreWhatTheyAreAlone) {
  for (const ChannelFold fold : {ChannelFold::kSum, ChannelFold::kMax}) {
    ExpectAsAlone(InputsOf(5, 260, 100), 5, 260, fold);
    ExpectAsAlone(InputsOf(16, 197, 192), 16, 197, fold);
  }
}

// The scratch of all would be too large.
TEST_F(CudaSsmFoldBatchTest, GroupsOfSequences) {
  const Inputs<float> in = InputsOf(3, 130, 6000);
  ASSERT_LT(ScratchBytes(in, 3, 130, 6000), 3 * ScratchBytes(in, 1, 130, 6000));
  ExpectAsAlone(in, 3, 130, ChannelFold::kSumAbs);
}

TEST_F(CudaSsmFoldBatchTest, GroupsOfChannels) {
  constexpr int64_t kChannels = 30000;
  const Inputs<float> in = InputsOf(1, 130, kChannels);
  ASSERT_LT(ScratchBytes(in, 1, 130, kChannels),
            1.5 * ScratchBytes(in, 1, 130, kChannels / 2));
  const DeviceInputs<float> device(in);
  const Folded all = Fold(in, device, 130, 0, 1, ChannelFold::kSumAbs);
  const Folded halves = Fold(in, device, 130, 0, 1, ChannelFold::kSumAbs, 2);
  EXPECT_LE(RelativeError(all.matrix, ToDouble(halves.matrix)), 1e-6);
  EXPECT_LE(RelativeError(all.product, ToDouble(halves.product)), 1e-6);
}

TEST_F(CudaSsmFoldTest, RefusesWhatItDoesNotTake) {
  SsmAttentionFold<float> op;
  op.attention.ssm.state_size = 17;
  EXPECT_FALSE(cuda::CanFold(op));
  op.attention.ssm.state_size = 16;
  const float taps[5] = {};
  op.attention.conv_weight = taps;
  op.attention.conv_width = 5;
  EXPECT_FALSE(cuda::CanFold(op));
  op.attention.conv_width = 4;
  EXPECT_TRUE(cuda::CanFold(op));
}

}  // namespace
}  // namespace limpid::kernels
