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

// Sequences one after the other, each by itself, read from either side.
TYPED_TEST(CausalConv1dTest, SequencesDirectionsAndActivation) {
  using T = TypeParam;
  constexpr int64_t kSequences = 3, kChannels = 37;
  for (const int64_t length : {1, 2, 9, 64}) {
    for (const bool reversed : {false, true}) {
      SCOPED_TRACE(absl::StrCat("L=", length, reversed ? " reversed" : ""));
      const Inputs<T> in(Sizes{kSequences * length, kChannels, 1, 4});
      const int64_t size = kSequences * length * kChannels;
      std::vector<double> expected[3];
      for (auto& numbers : expected) numbers.resize(size);
      CausalConv1d<double> exact{length,
                                 kChannels,
                                 4,
                                 in.conv_weight.exact(),
                                 in.conv_bias.exact(),
                                 in.u.exact(),
                                 in.stride,
                                 expected[0].data(),
                                 kChannels,
                                 kSequences,
                                 reversed,
                                 expected[1].data(),
                                 expected[2].data()};
      reference::Run(exact);
      ForEachSimdWidth([&] {
        std::vector<T> actual[3];
        for (auto& numbers : actual) numbers.assign(size, T{-7});
        CausalConv1d<T> op{length,
                           kChannels,
                           4,
                           in.conv_weight.data(),
                           in.conv_bias.data(),
                           in.u.data(),
                           in.stride,
                           actual[0].data(),
                           kChannels,
                           kSequences,
                           reversed,
                           actual[1].data(),
                           actual[2].data()};
        ASSERT_TRUE(cpu::Run(op).ok());
        for (int i = 0; i < 3; ++i) {
          EXPECT_TRUE(Near(actual[i], expected[i])) << "output " << i;
        }
        // The activated alone.
        std::vector<T> alone(size, T{-7});
        op.out = op.ratio = nullptr;
        op.activated = alone.data();
        ASSERT_TRUE(cpu::Run(op).ok());
        EXPECT_EQ(alone, actual[2]);
      });
    }
  }
}

TYPED_TEST(CausalConv1dTest, PackedSequences) {
  using T = TypeParam;
  constexpr int64_t kChannels = 37;
  for (const int64_t width : {1, 4, 7}) {
    for (const bool reversed : {false, true}) {
      SCOPED_TRACE(absl::StrCat("K=", width, reversed ? " reversed" : ""));
      const Inputs<T> in(Sizes{kPackedPositions, kChannels, 1, width});
      std::vector<double> expected(kPackedPositions * kChannels);
      reference::Run(CausalConv1d<double>{
          kPackedPositions, kChannels, width, in.conv_weight.exact(),
          in.conv_bias.exact(), in.u.exact(), in.stride, expected.data(),
          kChannels, kPackedSequences, reversed, nullptr, nullptr, kBegins});
      ForEachSimdWidth([&] {
        std::vector<T> actual(kPackedPositions * kChannels, T{-7});
        ASSERT_TRUE(
            cpu::Run(CausalConv1d<T>{kPackedPositions, kChannels, width,
                                     in.conv_weight.data(), in.conv_bias.data(),
                                     in.u.data(), in.stride, actual.data(),
                                     kChannels, kPackedSequences, reversed,
                                     nullptr, nullptr, kBegins})
                .ok());
        EXPECT_TRUE(Near(actual, expected));
      });
    }
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
