// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/reference/state.h"
#include "tests/unit/kernels/kernel_inputs.h"
#include "tests/unit/kernels/state_inputs.h"

namespace limpid::kernels {
namespace {

template <typename T>
std::vector<T> Expand(ExpandHeads<T> op) {
  std::vector<T> out((op.channel_end - op.channel_begin) *
                             (op.row_end - op.row_begin) * op.num_positions +
                         1,
                     T{-7});
  op.out = out.data();
  EXPECT_TRUE(cpu::Run(op).ok());
  EXPECT_EQ(out.back(), T{-7}) << "wrote behind the end";
  out.pop_back();
  return out;
}

template <typename T>
class ExpandHeadsTest : public testing::Test {
 protected:
  static void ExpectMatchesReference(const ExpandHeads<T>& op,
                                     ExpandHeads<double> exact) {
    std::vector<double> expected((op.channel_end - op.channel_begin) *
                                 (op.row_end - op.row_begin) *
                                 op.num_positions);
    exact.out = expected.data();
    reference::Run(exact);
    ForEachSimdWidth([&] { EXPECT_TRUE(Near(Expand(op), expected)); });
  }
};
TYPED_TEST_SUITE(ExpandHeadsTest, Precisions);

TYPED_TEST(ExpandHeadsTest, EveryCombinationOfFactors) {
  for (const ExpandSizes& sizes :
       {ExpandSizes{1, 1, 1, 1}, ExpandSizes{3, 2, 5, 4},
        ExpandSizes{70, 3, 7, 4}, ExpandSizes{65, 19, 1, 3}}) {
    for (int missing = 0; missing < 16; ++missing) {
      SCOPED_TRACE(
          absl::StrCat(sizes.ToString(), ", missing factors: ", missing));
      const ExpandInputs<TypeParam> in(sizes);
      this->ExpectMatchesReference(in.Op(missing), in.ExactOp(missing));
    }
  }
}

TYPED_TEST(ExpandHeadsTest, EveryConvolutionWidth) {
  for (int64_t width = 1; width <= kMaxConvWidth; ++width) {
    const ExpandInputs<TypeParam> in({50, 2, 3, width});
    SCOPED_TRACE(in.sizes.ToString());
    this->ExpectMatchesReference(in.Op(0), in.ExactOp(0));
  }
}

TYPED_TEST(ExpandHeadsTest, AllLengths) {
  for (const int64_t length : kLengths) {
    const ExpandInputs<TypeParam> in({length, 2, 2, 4});
    SCOPED_TRACE(in.sizes.ToString());
    this->ExpectMatchesReference(in.Op(0), in.ExactOp(0));
  }
}

TYPED_TEST(ExpandHeadsTest, RangesOfRowsAndChannels) {
  const ExpandInputs<TypeParam> in({37, 6, 5, 4});
  for (const auto& [row_begin, row_end] : std::vector<std::pair<int, int>>{
           {0, 1}, {1, 3}, {20, 37}, {36, 37}, {7, 7}}) {
    for (const auto& [channel_begin, channel_end] :
         std::vector<std::pair<int, int>>{{0, 1}, {4, 26}, {12, 30}, {9, 9}}) {
      for (const int missing : {0, 4, 6}) {
        SCOPED_TRACE(absl::StrCat("rows ", row_begin, " to ", row_end,
                                  ", channels ", channel_begin, " to ",
                                  channel_end, ", missing ", missing));
        auto op = in.Op(missing);
        auto exact = in.ExactOp(missing);
        op.row_begin = exact.row_begin = row_begin;
        op.row_end = exact.row_end = row_end;
        op.channel_begin = exact.channel_begin = channel_begin;
        op.channel_end = exact.channel_end = channel_end;
        // Matrices of the rows asked for, from the first head needed on: other
        // numbers than with all rows, but enough of them.
        op.head_begin = exact.head_begin =
            channel_begin / in.sizes.channels_per_head;
        this->ExpectMatchesReference(op, exact);
      }
    }
  }
}

TYPED_TEST(ExpandHeadsTest, OneChannelPerHeadWithoutFactorsIsACopy) {
  const ExpandInputs<TypeParam> in({33, 4, 1, 4});
  const std::vector<TypeParam> expected(in.heads.data(),
                                        in.heads.data() + 4 * 33 * 33);
  ForEachSimdWidth([&] { EXPECT_EQ(Expand(in.Op(15)), expected); });
}

TYPED_TEST(ExpandHeadsTest, SkipIsScaledAndGoesThroughTheConvolution) {
  // A matrix of zeros: what is left of row i is row_scale_i skip source_i times
  // row i of the convolution's matrix.
  const int64_t l = 9, k = 3;
  const ExpandInputs<TypeParam> in({l, 1, 1, k});
  const std::vector<TypeParam> zeros(l * l);
  ExpandHeads<TypeParam> op = in.Op(0);
  op.heads = zeros.data();
  const auto out = Expand(op);
  for (int64_t i = 0; i < l; ++i) {
    for (int64_t j = 0; j < l; ++j) {
      const double tap =
          i >= j && i - j < k ? in.conv_weight.exact()[k - 1 - (i - j)] : 0;
      EXPECT_NEAR(out[i * l + j],
                  in.row.exact()[i * in.stride] * in.skip.exact()[0] *
                      in.source.exact()[i * in.stride] * tap,
                  1e-6);
    }
  }
}

}  // namespace
}  // namespace limpid::kernels
