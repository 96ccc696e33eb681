// SPDX-License-Identifier: Apache-2.0
//
// SsmAttentionFold, SsmRowsFold and RowErrors on the CPU.
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "server/kernels/rows.h"
#include "tests/reference/rows.h"
#include "tests/unit/kernels/directions_inputs.h"
#include "tests/unit/kernels/fold_testing.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {
namespace {

// Whether every number is as close as it can be asked: sums of squares and
// maxima are as exact as the entries.
template <typename T>
constexpr double kBound = 3 * kTolerance<T>;

template <typename T>
class SsmFoldTest : public testing::Test {
 protected:
  using Vectors = std::pair<std::vector<T>, std::vector<T>>;

  // Folds and products of rows [begin, end) of an op that has everything but
  // outputs, against the reference.
  template <template <typename> typename Op, typename Share>
  static void Expect(const Inputs<T>& in, Op<T> op, Op<double> exact,
                     const Share& run) {
    const int64_t rows = op.attention.row_end - op.attention.row_begin;
    const int64_t length = in.sizes.positions, channels = in.sizes.channels;
    std::mt19937_64 g(7);
    const auto weight = Values<T>::Random(channels, 0, 1, g);
    exact.weight = weight.exact();
    exact.value = in.u.exact();
    exact.value_stride = in.stride;
    std::vector<double> matrix(rows * length, StartOf(op.fold));
    std::vector<double> product(rows * channels, -7);
    exact.accumulator = matrix.data();
    exact.product = product.data();
    reference::Run(exact);
    ForEachSimdWidth([&] {
      std::vector<T> actual(rows * length, static_cast<T>(StartOf(op.fold)));
      std::vector<T> products(rows * channels, T{-7});
      op.weight = weight.data();
      op.value = in.u.data();
      op.value_stride = in.stride;
      op.accumulator = actual.data();
      op.product = products.data();
      run(op);
      EXPECT_TRUE(Near(actual, matrix, kBound<T>));
      EXPECT_TRUE(Near(products, product, kBound<T>));
      // The matrix is the same without a product.
      std::vector<T> alone(rows * length, static_cast<T>(StartOf(op.fold)));
      op.accumulator = alone.data();
      op.product = nullptr;
      run(op);
      EXPECT_EQ(alone, actual);
    });
  }

  static void ExpectFold(const Inputs<T>& in, ChannelFold fold) {
    SsmAttentionFold<T> op;
    SsmAttentionFold<double> exact;
    op.fold = exact.fold = fold;
    op.attention = in.Attention();
    exact.attention = in.ExactAttention();
    Expect(in, op, exact, [](SsmAttentionFold<T> op) {
      // In shares of rows, and of channels one after the other.
      const int64_t length = op.attention.ssm.num_positions;
      const int64_t channels = op.attention.ssm.num_channels;
      for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{
               {0, length / 3}, {length / 3, length}}) {
        for (const auto& [first, last] :
             std::vector<std::pair<int64_t, int64_t>>{
                 {0, channels / 2}, {channels / 2, channels}}) {
          SsmAttentionFold<T> share = op;
          share.attention.row_begin = begin;
          share.attention.row_end = end;
          share.attention.channel_begin = first;
          share.attention.channel_end = last;
          share.accumulator += begin * length;
          if (op.product != nullptr) share.product += begin * channels;
          ASSERT_TRUE(cpu::Run(share).ok());
        }
      }
    });
  }

  static void ExpectRows(const Inputs<T>& in, ChannelFold fold, int64_t begin,
                         int64_t end, bool conv_bias = true) {
    SsmRowsFold<T> op;
    SsmRowsFold<double> exact;
    op.fold = exact.fold = fold;
    op.attention = in.Attention();
    exact.attention = in.ExactAttention();
    op.attention.row_begin = exact.attention.row_begin = begin;
    op.attention.row_end = exact.attention.row_end = end;
    if (conv_bias) {
      op.conv_bias = in.conv_bias.data();
      exact.conv_bias = in.conv_bias.exact();
    }
    Expect(in, op, exact, [](const SsmRowsFold<T>& op) {
      const int64_t channels = op.attention.ssm.num_channels;
      for (const auto& [first, last] : std::vector<std::pair<int64_t, int64_t>>{
               {0, channels / 2}, {channels / 2, channels}}) {
        SsmRowsFold<T> share = op;
        share.attention.channel_begin = first;
        share.attention.channel_end = last;
        ASSERT_TRUE(cpu::Run(share).ok());
      }
    });
  }
};
TYPED_TEST_SUITE(SsmFoldTest, Precisions);

TYPED_TEST(SsmFoldTest, AllRowsOfAllLengths) {
  for (const int64_t length : {1, 2, 3, 31, 32, 33, 64, 65, 100, 129}) {
    for (const auto& [channels, states] :
         std::vector<std::pair<int, int>>{{1, 1}, {19, 5}, {37, 16}}) {
      const Inputs<TypeParam> in(Sizes{length, channels, states, 4});
      SCOPED_TRACE(in.sizes.ToString());
      this->ExpectFold(in, ChannelFold::kSumAbs);
    }
  }
}

TYPED_TEST(SsmFoldTest, AllRowsOfEveryFold) {
  const Inputs<TypeParam> in(Sizes{70, 11, 16, 4});
  for (const ChannelFold fold : kFolds) {
    SCOPED_TRACE(absl::StrCat("fold ", static_cast<int>(fold)));
    this->ExpectFold(in, fold);
  }
}

TYPED_TEST(SsmFoldTest, FewRowsAtAllPlaces) {
  for (const int64_t length : {1, 2, 15, 16, 17, 65, 130}) {
    for (const auto& [channels, states] :
         std::vector<std::pair<int, int>>{{1, 1}, {5, 3}, {37, 16}}) {
      const Inputs<TypeParam> in(Sizes{length, channels, states, 4});
      SCOPED_TRACE(in.sizes.ToString());
      this->ExpectRows(in, ChannelFold::kSumAbs, length - 1, length);
      this->ExpectRows(in, ChannelFold::kSumAbs, length / 2,
                       std::min(length, length / 2 + kMaxFoldedRows),
                       /*conv_bias=*/false);
    }
  }
}

TYPED_TEST(SsmFoldTest, FewRowsOfEveryFoldAndWidth) {
  for (const ChannelFold fold : kFolds) {
    SCOPED_TRACE(absl::StrCat("fold ", static_cast<int>(fold)));
    for (const int64_t width : {1, 3, 16}) {
      const Inputs<TypeParam> in(Sizes{70, 11, 16, width});
      this->ExpectRows(in, fold, 40, 42);
    }
  }
}

template <typename T>
std::vector<T> Errors(const std::vector<T>& product,
                      const std::vector<T>& output, const T* bias = nullptr) {
  std::vector<T> error(2);
  EXPECT_TRUE(cpu::Run(RowErrors<T>{2, 2, product.data(), 3, bias, 2,
                                    output.data(), 2, error.data()})
                  .ok());
  return error;
}

TYPED_TEST(SsmFoldTest, ErrorsAreRelativeToTheRow) {
  using T = TypeParam;
  // [2, 2] with rows of 3.
  const std::vector<T> product = {1, 2, -7, 3, 5, -7};
  EXPECT_EQ(Errors<T>(product, {1, 4, 3, 4}), (std::vector<T>{0.5, 0.25}));
  const std::vector<T> bias = {0, 2, 0, -1};
  EXPECT_EQ(Errors<T>(product, {1, 4, 3, 4}, bias.data()),
            (std::vector<T>{0, 0}));
}

TYPED_TEST(SsmFoldTest, ErrorsOfWhatIsNotFiniteAreNaN) {
  using T = TypeParam;
  constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  const std::vector<T> good = {1, 2, 0, 3, 5, 0};
  for (const T bad : {kNaN, kInfinity, -kInfinity}) {
    EXPECT_TRUE(std::isnan(Errors<T>(good, {bad, 2, 3, 5})[0]));
    EXPECT_TRUE(std::isnan(Errors<T>(good, {1, bad, 3, 5})[0]));
    EXPECT_EQ(Errors<T>(good, {1, bad, 3, 5})[1], 0);
  }
  EXPECT_TRUE(std::isnan(Errors<T>({kNaN, 2, 0, 3, 5, 0}, {1, 2, 3, 5})[0]));
}

TYPED_TEST(SsmFoldTest, JoinsDirections) {
  using T = TypeParam;
  for (const int64_t length : {1, 2, 9}) {
    const Directions<T> in(length, 7);
    for (const ChannelFold fold : kFolds) {
      SCOPED_TRACE(
          absl::StrCat("L=", length, ", fold ", static_cast<int>(fold)));
      std::vector<T> ahead = ConvertTo<T>(in.Exact(in.of_ahead));
      std::vector<T> back = ConvertTo<T>(in.Exact(in.of_back));
      std::vector<T> out(ahead.size(), T{-7});
      JoinDirections<T> op =
          in.Join(in.ahead.Attention(), in.back.Attention(), fold);
      op.ahead.weight = op.back.weight = in.weight.data();
      op.ahead.accumulator = ahead.data();
      op.back.accumulator = back.data();
      op.out = out.data();
      // In two shares.
      JoinDirections<T> share = op;
      share.row_end = op.row_end / 2;
      ASSERT_TRUE(cpu::Run(share).ok());
      share.row_begin = share.row_end;
      share.row_end = op.row_end;
      ASSERT_TRUE(cpu::Run(share).ok());
      EXPECT_TRUE(Near(out, in.Expected(fold)));
      op.back.num_sequences = 1;
      EXPECT_FALSE(cpu::Run(op).ok());
    }
  }
}

}  // namespace
}  // namespace limpid::kernels
