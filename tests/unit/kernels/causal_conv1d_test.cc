// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/reference/ssm.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {
namespace {

template <typename T>
class CausalConv1dTest : public testing::Test {
 protected:
  static void ExpectMatchesReference(const Inputs<T>& in, bool bias) {
    SCOPED_TRACE(in.sizes.ToString());
    const int64_t l = in.sizes.positions, d = in.sizes.channels;
    std::vector<double> expected(l * (d + 1), -7);
    reference::Run(
        CausalConv1d<double>{l, d, in.sizes.conv_width, in.conv_weight.exact(),
                             bias ? in.conv_bias.exact() : nullptr,
                             in.u.exact(), in.stride, expected.data(), d + 1});
    ForEachSimdWidth([&] {
      // The column between the rows must stay as it is.
      std::vector<T> out(l * (d + 1), T{-7});
      ASSERT_TRUE(cpu::Run(CausalConv1d<T>{
                               l, d, in.sizes.conv_width, in.conv_weight.data(),
                               bias ? in.conv_bias.data() : nullptr,
                               in.u.data(), in.stride, out.data(), d + 1})
                      .ok());
      EXPECT_TRUE(Near(out, expected));
    });
  }
};
TYPED_TEST_SUITE(CausalConv1dTest, Precisions);

TYPED_TEST(CausalConv1dTest, MatchesReferenceAtAllLengths) {
  for (const int64_t length : kLengths) {
    for (const int64_t channels : {1, 5, 64, 131}) {
      this->ExpectMatchesReference(
          Inputs<TypeParam>(Sizes{length, channels, 1, 4}), true);
    }
  }
}

TYPED_TEST(CausalConv1dTest, MatchesReferenceAtAllWidths) {
  for (int64_t width = 1; width <= kMaxConvWidth; ++width) {
    this->ExpectMatchesReference(Inputs<TypeParam>(Sizes{19, 7, 1, width}),
                                 width % 2 == 0);
  }
}

// A thread's share: the same call with shifted pointers.
TYPED_TEST(CausalConv1dTest, SharesOfChannelsMakeTheWhole) {
  const Inputs<TypeParam> in(Sizes{12, 50, 1, 4});
  std::vector<TypeParam> whole(12 * 50), parts(12 * 50);
  CausalConv1d<TypeParam> op{12,
                             50,
                             4,
                             in.conv_weight.data(),
                             in.conv_bias.data(),
                             in.u.data(),
                             in.stride,
                             whole.data(),
                             50};
  ASSERT_TRUE(cpu::Run(op).ok());
  for (const auto& [begin, end] :
       std::vector<std::pair<int, int>>{{0, 21}, {21, 50}}) {
    CausalConv1d<TypeParam> share = op;
    share.num_channels = end - begin;
    share.weight += begin * op.width;
    share.bias += begin;
    share.x += begin;
    share.out = parts.data() + begin;
    ASSERT_TRUE(cpu::Run(share).ok());
  }
  EXPECT_EQ(whole, parts);
}

}  // namespace
}  // namespace limpid::kernels
