// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/reference/ssm.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {
namespace {

enum class Algorithm { kChosen, kRecursive, kChunked };
constexpr Algorithm kAlgorithms[] = {Algorithm::kChosen, Algorithm::kRecursive,
                                     Algorithm::kChunked};

template <typename Op>
int64_t OutSize(const Op& op) {
  return (op.channel_end - op.channel_begin) * (op.row_end - op.row_begin) *
         op.ssm.num_positions;
}

template <typename T>
std::vector<T> Attend(SsmAttention<T> op,
                      Algorithm algorithm = Algorithm::kChosen) {
  std::vector<T> out(OutSize(op) + 1, T{-7});
  op.out = out.data();
  switch (algorithm) {
    case Algorithm::kChosen:
      EXPECT_TRUE(cpu::Run(op).ok());
      break;
    case Algorithm::kRecursive:
      EXPECT_TRUE(cpu::RunRecursive(op).ok());
      break;
    case Algorithm::kChunked:
      EXPECT_TRUE(cpu::RunChunked(op).ok());
      break;
  }
  EXPECT_EQ(out.back(), T{-7}) << "wrote behind the end";
  out.pop_back();
  return out;
}

std::vector<double> Reference(SsmAttention<double> op) {
  std::vector<double> out(OutSize(op));
  op.out = out.data();
  reference::Run(op);
  return out;
}

template <typename T>
class SsmAttentionTest : public testing::Test {
 protected:
  static void ExpectMatchesReference(const SsmAttention<T>& op,
                                     const SsmAttention<double>& exact,
                                     double tolerance = kTolerance<T>) {
    const std::vector<double> expected = Reference(exact);
    ForEachSimdWidth([&] {
      for (const Algorithm algorithm : kAlgorithms) {
        SCOPED_TRACE(absl::StrCat("algorithm ", static_cast<int>(algorithm)));
        EXPECT_TRUE(Near(Attend(op, algorithm), expected, tolerance));
      }
    });
  }
};
TYPED_TEST_SUITE(SsmAttentionTest, Precisions);

TYPED_TEST(SsmAttentionTest, MatchesReferenceAtAllLengths) {
  for (const int64_t length : kLengths) {
    for (const auto& [channels, states] :
         std::vector<std::pair<int, int>>{{1, 1}, {3, 5}, {2, 16}, {5, 17}}) {
      const Inputs<TypeParam> in(Sizes{length, channels, states});
      SCOPED_TRACE(in.sizes.ToString());
      this->ExpectMatchesReference(in.Attention(), in.ExactAttention());
    }
  }
}

TYPED_TEST(SsmAttentionTest, ManyChannels) {
  const Inputs<TypeParam> in(Sizes{37, 35, 4});
  this->ExpectMatchesReference(in.Attention(), in.ExactAttention());
}

TYPED_TEST(SsmAttentionTest, EveryCombinationOfFactors) {
  const Inputs<TypeParam> in(Sizes{70, 3, 5});
  for (int missing = 0; missing < 16; ++missing) {
    SCOPED_TRACE(absl::StrCat("missing factors: ", missing));
    auto op = in.Attention();
    auto exact = in.ExactAttention();
    if (missing & 1) op.ssm.skip = nullptr, exact.ssm.skip = nullptr;
    if (missing & 2) op.source_scale = nullptr, exact.source_scale = nullptr;
    if (missing & 4) op.conv_weight = nullptr, exact.conv_weight = nullptr;
    if (missing & 8) op.row_scale = nullptr, exact.row_scale = nullptr;
    this->ExpectMatchesReference(op, exact);
  }
}

TYPED_TEST(SsmAttentionTest, EveryConvolutionWidth) {
  for (int64_t width = 1; width <= kMaxConvWidth; ++width) {
    const Inputs<TypeParam> in(Sizes{50, 2, 3, width});
    SCOPED_TRACE(in.sizes.ToString());
    this->ExpectMatchesReference(in.Attention(), in.ExactAttention());
  }
}

TYPED_TEST(SsmAttentionTest, LargestState) {
  const Inputs<TypeParam> in(Sizes{40, 2, kMaxStateSize});
  this->ExpectMatchesReference(in.Attention(), in.ExactAttention());
}

TYPED_TEST(SsmAttentionTest, RangesOfRowsAndChannels) {
  const Inputs<TypeParam> in(Sizes{131, 20, 5});
  for (const auto& [row_begin, row_end] : std::vector<std::pair<int, int>>{
           {0, 1}, {1, 2}, {5, 8}, {31, 33}, {33, 97}, {130, 131}, {7, 7}}) {
    for (const auto& [channel_begin, channel_end] :
         std::vector<std::pair<int, int>>{{0, 1}, {2, 20}, {17, 19}, {4, 4}}) {
      SCOPED_TRACE(absl::StrCat("rows ", row_begin, " to ", row_end,
                                ", channels ", channel_begin, " to ",
                                channel_end));
      auto op = in.Attention();
      auto exact = in.ExactAttention();
      op.row_begin = exact.row_begin = row_begin;
      op.row_end = exact.row_end = row_end;
      op.channel_begin = exact.channel_begin = channel_begin;
      op.channel_end = exact.channel_end = channel_end;
      this->ExpectMatchesReference(op, exact);
    }
  }
}

TYPED_TEST(SsmAttentionTest, SingleRowIsRowOfMatrix) {
  const Inputs<TypeParam> in(Sizes{129, 3, 16});
  const auto matrix = Attend(in.Attention());
  for (const int64_t row : {0, 1, 31, 32, 33, 100, 128}) {
    auto op = in.Attention();
    op.channel_begin = 2;
    op.channel_end = 3;
    op.row_begin = row;
    op.row_end = row + 1;
    const auto begin = matrix.begin() + (2 * 129 + row) * 129;
    EXPECT_TRUE(Near(Attend(op), std::vector<double>(begin, begin + 129)));
  }
}

TYPED_TEST(SsmAttentionTest, NothingAboveTheDiagonal) {
  const Inputs<TypeParam> in(Sizes{99, 2, 16});
  for (const Algorithm algorithm : kAlgorithms) {
    const auto out = Attend(in.Attention(), algorithm);
    for (int64_t c = 0; c < 2; ++c) {
      for (int64_t i = 0; i < 99; ++i) {
        for (int64_t j = i + 1; j < 99; ++j) {
          ASSERT_EQ(out[(c * 99 + i) * 99 + j], TypeParam{0});
        }
      }
    }
  }
}

// The identity that makes it an explanation: alpha x + beta is the output of
// the block, computed here by the other kernels.
TYPED_TEST(SsmAttentionTest, TimesInputPlusBiasIsTheBlocksOutput) {
  using T = TypeParam;
  const int64_t l = 100, d = 5, k = 4;
  const Inputs<T> in(Sizes{l, d, 16, k});
  std::vector<T> conv(l * d), y(l * d);
  ASSERT_TRUE(cpu::Run(CausalConv1d<T>{l, d, k, in.conv_weight.data(),
                                       in.conv_bias.data(), in.u.data(),
                                       in.stride, conv.data(), d})
                  .ok());
  for (int64_t i = 0; i < l; ++i) {
    for (int64_t c = 0; c < d; ++c) {
      conv[i * d + c] *= in.source.data()[i * in.stride + c];
    }
  }
  ASSERT_TRUE(
      cpu::Run(SelectiveScan<T>{in.Ssm(), 0, d, conv.data(), d, y.data(), d})
          .ok());
  const auto alpha = Attend(in.Attention());
  auto without_conv = in.Attention();
  without_conv.conv_weight = nullptr;
  const auto before_conv = Attend(without_conv);

  std::vector<T> actual;
  std::vector<double> expected;
  for (int64_t c = 0; c < d; ++c) {
    for (int64_t i = 0; i < l; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < l; ++j) {
        const int64_t at = (c * l + i) * l + j;
        sum += double{alpha[at]} * in.u.data()[j * in.stride + c] +
               double{before_conv[at]} * in.conv_bias.data()[c];
      }
      actual.push_back(static_cast<T>(sum));
      expected.push_back(y[i * d + c] * in.row.data()[i * in.stride + c]);
    }
  }
  EXPECT_TRUE(Near(actual, expected));
}

TYPED_TEST(SsmAttentionTest, AllDecaysZero) {
  const Inputs<TypeParam> in(Sizes{100, 3, 16}, /*max_delta=*/1e3,
                             /*max_decay_rate=*/1e6);
  this->ExpectMatchesReference(in.Attention(), in.ExactAttention());
}

TYPED_TEST(SsmAttentionTest, AllDecaysOne) {
  const Inputs<TypeParam> in(Sizes{100, 3, 16}, /*max_delta=*/0.3,
                             /*max_decay_rate=*/0);
  this->ExpectMatchesReference(in.Attention(), in.ExactAttention());
}

TYPED_TEST(SsmAttentionTest, OnlySkipIsLeftIfDeltaIsZero) {
  const Inputs<TypeParam> in(Sizes{66, 2, 4}, /*max_delta=*/0);
  this->ExpectMatchesReference(in.Attention(), in.ExactAttention());
}

// Rates at which entries far from the diagonal neither vanish nor stay: errors
// of sums and products over the whole length would show.
TYPED_TEST(SsmAttentionTest, LongSequence) {
  const Inputs<TypeParam> in(Sizes{4096, 2, 16}, /*max_delta=*/0.002,
                             /*max_decay_rate=*/1);
  auto op = in.Attention();
  auto exact = in.ExactAttention();
  op.row_begin = exact.row_begin = 4096 - 34;
  this->ExpectMatchesReference(op, exact, 5 * kTolerance<TypeParam>);
}

TYPED_TEST(SsmAttentionTest, WholeLongMatrixKeepsItsAccuracy) {
  const Inputs<TypeParam> in(Sizes{2048, 1, 3}, /*max_delta=*/0.004,
                             /*max_decay_rate=*/1);
  const auto matrix = Attend(in.Attention());
  auto exact = in.ExactAttention();
  exact.row_begin = 2040;
  EXPECT_TRUE(
      Near(std::vector<TypeParam>(matrix.begin() + 2040 * 2048, matrix.end()),
           Reference(exact), 5 * kTolerance<TypeParam>));
}

TYPED_TEST(SsmAttentionTest, LongSequenceThatForgetsFast) {
  const Inputs<TypeParam> in(Sizes{4096, 1, 16}, /*max_delta=*/2,
                             /*max_decay_rate=*/16);
  auto op = in.Attention();
  auto exact = in.ExactAttention();
  op.row_begin = exact.row_begin = 4096 - 40;
  this->ExpectMatchesReference(op, exact);
}

}  // namespace
}  // namespace limpid::kernels
