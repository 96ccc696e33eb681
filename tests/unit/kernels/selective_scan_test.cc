// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/reference/ssm.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {
namespace {

template <typename T>
class SelectiveScanTest : public testing::Test {
 protected:
  // All channels, y contiguous.
  static std::vector<T> Scan(const Inputs<T>& in, const SelectiveSsm<T>& ssm) {
    std::vector<T> y(in.sizes.positions * in.sizes.channels);
    SelectiveScan<T> op{ssm,       0,        in.sizes.channels, in.u.data(),
                        in.stride, y.data(), in.sizes.channels};
    EXPECT_TRUE(cpu::Run(op).ok());
    return y;
  }
  static std::vector<double> Reference(const Inputs<T>& in,
                                       const SelectiveSsm<double>& ssm) {
    std::vector<double> y(in.sizes.positions * in.sizes.channels);
    reference::Run(SelectiveScan<double>{ssm, 0, in.sizes.channels,
                                         in.u.exact(), in.stride, y.data(),
                                         in.sizes.channels});
    return y;
  }
};
TYPED_TEST_SUITE(SelectiveScanTest, Precisions);

TYPED_TEST(SelectiveScanTest, MatchesReference) {
  for (const int64_t length : kLengths) {
    for (const auto& [channels, states] :
         std::vector<std::pair<int, int>>{{1, 1}, {3, 5}, {17, 16}, {35, 17}}) {
      const Inputs<TypeParam> in(Sizes{length, channels, states});
      SCOPED_TRACE(in.sizes.ToString());
      const auto expected = this->Reference(in, in.ExactSsm());
      ForEachSimdWidth(
          [&] { EXPECT_TRUE(Near(this->Scan(in, in.Ssm()), expected)); });
    }
  }
}

TYPED_TEST(SelectiveScanTest, WithoutSkip) {
  const Inputs<TypeParam> in(Sizes{9, 5, 3});
  SelectiveSsm<TypeParam> ssm = in.Ssm();
  SelectiveSsm<double> exact = in.ExactSsm();
  ssm.skip = nullptr;
  exact.skip = nullptr;
  EXPECT_TRUE(Near(this->Scan(in, ssm), this->Reference(in, exact)));
}

TYPED_TEST(SelectiveScanTest, LargestState) {
  const Inputs<TypeParam> in(Sizes{5, 19, kMaxStateSize});
  EXPECT_TRUE(
      Near(this->Scan(in, in.Ssm()), this->Reference(in, in.ExactSsm())));
}

TYPED_TEST(SelectiveScanTest, WritesItsChannelsOnly) {
  const Inputs<TypeParam> in(Sizes{6, 40, 4});
  const auto expected = this->Scan(in, in.Ssm());
  ForEachSimdWidth([&] {
    // Wider than the rows, so that the gap is seen as well.
    std::vector<TypeParam> y(6 * 43, TypeParam{-7});
    SelectiveScan<TypeParam> op{in.Ssm(),  3,        22, in.u.data(),
                                in.stride, y.data(), 43};
    ASSERT_TRUE(cpu::Run(op).ok());
    for (int64_t i = 0; i < 6; ++i) {
      for (int64_t c = 0; c < 43; ++c) {
        if (c >= 3 && c < 22) {
          EXPECT_NEAR(y[i * 43 + c], expected[i * 40 + c], 1e-5);
        } else {
          EXPECT_EQ(y[i * 43 + c], TypeParam{-7});
        }
      }
    }
  });
}

TYPED_TEST(SelectiveScanTest, EmptyRangeOfChannelsDoesNothing) {
  const Inputs<TypeParam> in(Sizes{6, 4, 4});
  std::vector<TypeParam> y(24, TypeParam{-7});
  SelectiveScan<TypeParam> op{in.Ssm(),  2,        2, in.u.data(),
                              in.stride, y.data(), 4};
  ASSERT_TRUE(cpu::Run(op).ok());
  EXPECT_EQ(y, std::vector<TypeParam>(24, TypeParam{-7}));
}

TYPED_TEST(SelectiveScanTest, AllDecaysZero) {
  Inputs<TypeParam> in(Sizes{65, 17, 16}, /*max_delta=*/1e6,
                       /*max_decay_rate=*/1e6);
  EXPECT_TRUE(
      Near(this->Scan(in, in.Ssm()), this->Reference(in, in.ExactSsm())));
}

TYPED_TEST(SelectiveScanTest, AllDecaysOne) {
  const Inputs<TypeParam> in(Sizes{4096, 3, 5}, /*max_delta=*/0.3,
                             /*max_decay_rate=*/0);
  // A sum of 4096 terms in the precision under test.
  EXPECT_TRUE(Near(this->Scan(in, in.Ssm()), this->Reference(in, in.ExactSsm()),
                   10 * kTolerance<TypeParam>));
}

TYPED_TEST(SelectiveScanTest, NoTimePassesIfDeltaIsZero) {
  const Inputs<TypeParam> in(Sizes{70, 5, 4}, /*max_delta=*/0);
  const auto y = this->Scan(in, in.Ssm());
  for (int64_t i = 0; i < 70; ++i) {
    for (int64_t c = 0; c < 5; ++c) {
      EXPECT_EQ(y[i * 5 + c],
                in.skip.data()[c] * in.u.data()[i * in.stride + c]);
    }
  }
}

TYPED_TEST(SelectiveScanTest, LongSequence) {
  const Inputs<TypeParam> in(Sizes{4096, 17, 16});
  EXPECT_TRUE(
      Near(this->Scan(in, in.Ssm()), this->Reference(in, in.ExactSsm())));
}

// Sequences one after the other, each from a state of zero, and everything that
// the block does next.
TYPED_TEST(SelectiveScanTest, SequencesAndWhatFollows) {
  using T = TypeParam;
  constexpr int64_t kSequences = 3, kChannels = 21;
  for (const int64_t length : {1, 2, 17, 65}) {
    for (const bool reversed : {false, true}) {
      SCOPED_TRACE(absl::StrCat("L=", length, reversed ? " reversed" : ""));
      const Inputs<T> in(Sizes{kSequences * length, kChannels, 16});
      const int64_t size = kSequences * length * kChannels;
      std::mt19937_64 g(3);
      const auto added = Values<T>::Random(size, -1, 1, g);
      std::vector<double> expected(added.exact(), added.exact() + size);
      std::vector<double> expected_gate(size);
      SelectiveSsm<double> exact_ssm = in.ExactSsm();
      exact_ssm.num_positions = length;
      reference::Run(SelectiveScan<double>{
          exact_ssm, 0, kChannels, in.u.exact(), in.stride, expected.data(),
          kChannels, kSequences, reversed, expected.data(), in.row.exact(),
          in.stride, expected_gate.data(), 0.5});
      SelectiveSsm<T> ssm = in.Ssm();
      ssm.num_positions = length;
      ForEachSimdWidth([&] {
        std::vector<T> y(added.data(), added.data() + size), gate(size, T{-7});
        // In two shares of channels.
        for (const auto& [begin, end] :
             std::vector<std::pair<int64_t, int64_t>>{{0, 5}, {5, kChannels}}) {
          ASSERT_TRUE(
              cpu::Run(SelectiveScan<T>{ssm, begin, end, in.u.data(), in.stride,
                                        y.data(), kChannels, kSequences,
                                        reversed, y.data(), in.row.data(),
                                        in.stride, gate.data(), T{0.5}})
                  .ok());
        }
        EXPECT_TRUE(Near(y, expected));
        EXPECT_TRUE(Near(gate, expected_gate));
      });
    }
  }
}

TYPED_TEST(SelectiveScanTest, PackedSequences) {
  using T = TypeParam;
  constexpr int64_t kChannels = 21;
  const Inputs<T> in(Sizes{kPackedPositions, kChannels, 16});
  for (const bool reversed : {false, true}) {
    SCOPED_TRACE(reversed ? "reversed" : "");
    const int64_t size = kPackedPositions * kChannels;
    std::vector<double> expected(size), expected_gate(size);
    reference::Run(SelectiveScan<double>{
        in.ExactSsm(), 0, kChannels, in.u.exact(), in.stride, expected.data(),
        kChannels, kPackedSequences, reversed, nullptr, in.row.exact(),
        in.stride, expected_gate.data(), 1, kBegins});
    ForEachSimdWidth([&] {
      std::vector<T> y(size, T{-7}), gate(size, T{-7});
      ASSERT_TRUE(cpu::Run(SelectiveScan<T>{in.Ssm(), 0, kChannels, in.u.data(),
                                            in.stride, y.data(), kChannels,
                                            kPackedSequences, reversed, nullptr,
                                            in.row.data(), in.stride,
                                            gate.data(), 1, kBegins})
                      .ok());
      EXPECT_TRUE(Near(y, expected));
      EXPECT_TRUE(Near(gate, expected_gate));
    });
  }
}

TYPED_TEST(SelectiveScanTest, LeavesDenormalsOnForItsCaller) {
  const Inputs<TypeParam> in(Sizes{3, 3, 3});
  this->Scan(in, in.Ssm());
  volatile float smallest = std::numeric_limits<float>::min();
  smallest = smallest / 4;
  EXPECT_GT(smallest, 0.0f);
}

}  // namespace
}  // namespace limpid::kernels
