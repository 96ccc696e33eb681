// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/wkv.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/reference/rows.h"
#include "tests/unit/kernels/wkv_inputs.h"

namespace limpid::kernels {
namespace {

template <typename T>
class WkvTest : public testing::Test {
 protected:
  static void ExpectMatchesReference(const WkvInputs<T>& in,
                                     double tolerance = kTolerance<T>) {
    SCOPED_TRACE(absl::StrCat("B=", in.sizes.sequences, " L=",
                              in.sizes.positions, " D=", in.sizes.channels));
    WkvOutputs<double> expected(in.sizes);
    Wkv<double> exact = in.Exact();
    expected.Point(exact);
    reference::Run(exact);
    ForEachSimdWidth([&] {
      WkvOutputs<T> actual(in.sizes);
      Wkv<T> op = in.Op();
      actual.Point(op);
      // In two shares of channels.
      op.channel_end = in.sizes.channels / 2;
      ASSERT_TRUE(cpu::Run(op).ok());
      op.channel_begin = op.channel_end;
      op.channel_end = in.sizes.channels;
      ASSERT_TRUE(cpu::Run(op).ok());
      for (int i = 0; i < WkvOutputs<T>::kOutputs; ++i) {
        EXPECT_TRUE(Near(actual.all[i], expected.all[i], tolerance))
            << "output " << i;
      }
    });
  }
};
TYPED_TEST_SUITE(WkvTest, Precisions);

TYPED_TEST(WkvTest, MatchesReferenceAtAllLengths) {
  for (const int64_t length : kLengths) {
    for (const int64_t channels : {1, 5, 37}) {
      this->ExpectMatchesReference(WkvInputs<TypeParam>({2, length, channels}));
    }
  }
}

TYPED_TEST(WkvTest, LargeKeysAndStrongDecays) {
  // The reference adds up logarithms of weights that are as large as this.
  constexpr double kTolerance = std::max(kernels::kTolerance<TypeParam>, 1e-11);
  this->ExpectMatchesReference(WkvInputs<TypeParam>({1, 65, 9}, 300, 100),
                               kTolerance);
  this->ExpectMatchesReference(WkvInputs<TypeParam>({1, 65, 9}, 300, 1e5),
                               kTolerance);
}

// Rounding of the largest weight must not add up over positions.
TYPED_TEST(WkvTest, WeakDecaysOverManyPositions) {
  this->ExpectMatchesReference(WkvInputs<TypeParam>({1, 2048, 2}, 30, 1e-3));
}

TYPED_TEST(WkvTest, PackedSequences) {
  using T = TypeParam;
  const WkvInputs<T> in({1, kPackedPositions, 11});
  WkvOutputs<double> expected(in.sizes);
  Wkv<double> exact = in.Exact();
  expected.Point(exact);
  exact.num_sequences = kPackedSequences;
  exact.begins = kBegins;
  reference::Run(exact);
  ForEachSimdWidth([&] {
    WkvOutputs<T> actual(in.sizes);
    Wkv<T> op = in.Op();
    actual.Point(op);
    op.num_sequences = kPackedSequences;
    op.begins = kBegins;
    ASSERT_TRUE(cpu::Run(op).ok());
    for (int i = 0; i < WkvOutputs<T>::kOutputs; ++i) {
      EXPECT_TRUE(Near(actual.all[i], expected.all[i])) << "output " << i;
    }
  });
}

TYPED_TEST(WkvTest, OutputAloneAndWithoutGate) {
  using T = TypeParam;
  const WkvInputs<T> in({2, 17, 11});
  Wkv<double> exact = in.Exact();
  std::vector<double> expected(in.sizes.size());
  exact.gate_input = nullptr;
  exact.out = expected.data();
  reference::Run(exact);
  Wkv<T> op = in.Op();
  std::vector<T> actual(in.sizes.size());
  op.gate_input = nullptr;
  op.out = actual.data();
  ASSERT_TRUE(cpu::Run(op).ok());
  EXPECT_TRUE(Near(actual, expected));
}

}  // namespace
}  // namespace limpid::kernels
