// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/reference/state.h"
#include "tests/unit/kernels/kernel_inputs.h"
#include "tests/unit/kernels/state_inputs.h"

namespace limpid::kernels {
namespace {

template <typename T>
class StateScanTest : public testing::Test {
 protected:
  static std::vector<T> Scan(const StateInputs<T>& in) {
    std::vector<T> out(in.sizes.Rows() * in.sizes.value + 1, T{-7});
    StateScan<T> op = in.Scan();
    op.out = out.data();
    EXPECT_TRUE(cpu::Run(op).ok());
    EXPECT_EQ(out.back(), T{-7}) << "wrote behind the end";
    out.pop_back();
    return out;
  }
  static std::vector<double> Reference(const StateInputs<T>& in) {
    std::vector<double> out(in.sizes.Rows() * in.sizes.value);
    StateScan<double> op = in.ExactScan();
    op.out = out.data();
    reference::Run(op);
    return out;
  }
  static void ExpectMatchesReference(const StateInputs<T>& in,
                                     double tolerance = kTolerance<T>) {
    const std::vector<double> expected = Reference(in);
    ForEachSimdWidth([&] { EXPECT_TRUE(Near(Scan(in), expected, tolerance)); });
  }
};
TYPED_TEST_SUITE(StateScanTest, Precisions);

TYPED_TEST(StateScanTest, MatchesReference) {
  for (const StateSizes& sizes : kStateShapes) {
    SCOPED_TRACE(sizes.ToString());
    ForEachStateOption([&](const StateOptions& options) {
      this->ExpectMatchesReference(StateInputs<TypeParam>(sizes, options));
    });
  }
}

TYPED_TEST(StateScanTest, MatchesReferenceAtAllLengths) {
  for (const int64_t length : kLengths) {
    for (const bool diagonal : {false, true}) {
      StateOptions options;
      options.diagonal = diagonal;
      for (StateSizes sizes :
           {StateSizes{2, 1, 19, 1, 1}, StateSizes{1, 1, 3, 8, 12}}) {
        sizes.positions = length;
        SCOPED_TRACE(sizes.ToString());
        this->ExpectMatchesReference(StateInputs<TypeParam>(sizes, options));
      }
    }
  }
}

// Sequences start anew, and a share of the heads may begin and end anywhere.
TYPED_TEST(StateScanTest, SharesOfHeadsMakeTheWhole) {
  for (const StateSizes& sizes :
       {StateSizes{3, 6, 21, 1, 2}, StateSizes{3, 6, 5, 9, 20}}) {
    SCOPED_TRACE(sizes.ToString());
    const StateInputs<TypeParam> in(sizes, {});
    ForEachSimdWidth([&] {
      const auto whole = this->Scan(in);
      const int64_t all = sizes.AllHeads();
      std::vector<TypeParam> parts(whole.size(), TypeParam{-7});
      for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{
               {0, 1}, {1, 1}, {1, all - 4}, {all - 4, all}}) {
        StateScan<TypeParam> op = in.Scan();
        op.head_begin = begin;
        op.head_end = end;
        op.out = parts.data();
        ASSERT_TRUE(cpu::Run(op).ok());
      }
      // To the last bit: the number of threads must not be seen.
      EXPECT_EQ(parts, whole);
    });
  }
}

TYPED_TEST(StateScanTest, PackedSequences) {
  for (const StateSizes& sizes : kPackedShapes) {
    SCOPED_TRACE(sizes.ToString());
    ForEachStateOption([&](const StateOptions& options) {
      const StateInputs<TypeParam> in(sizes, options);
      std::vector<double> expected(sizes.Rows() * sizes.value);
      StateScan<double> exact = Packed(in.ExactScan(), kBegins);
      exact.out = expected.data();
      reference::Run(exact);
      ForEachSimdWidth([&] {
        std::vector<TypeParam> actual(expected.size(), TypeParam{-7});
        StateScan<TypeParam> op = Packed(in.Scan(), kBegins);
        op.out = actual.data();
        // In two shares, which begin and end within a sequence.
        const int64_t all = op.head_end;
        op.head_end = sizes.heads + 2;
        ASSERT_TRUE(cpu::Run(op).ok());
        op.head_begin = op.head_end;
        op.head_end = all;
        ASSERT_TRUE(cpu::Run(op).ok());
        EXPECT_TRUE(Near(actual, expected));
      });
    });
  }
}

TYPED_TEST(StateScanTest, WritesItsHeadsOnly) {
  for (const StateSizes& sizes :
       {StateSizes{2, 4, 30, 1, 2}, StateSizes{2, 4, 6, 9, 20}}) {
    SCOPED_TRACE(sizes.ToString());
    const StateInputs<TypeParam> in(sizes, {});
    const int64_t begin = 2, end = sizes.heads + 3;
    ForEachSimdWidth([&] {
      std::vector<TypeParam> out(sizes.Rows() * sizes.value, TypeParam{-7});
      StateScan<TypeParam> op = in.Scan();
      op.head_begin = begin;
      op.head_end = end;
      op.out = out.data();
      ASSERT_TRUE(cpu::Run(op).ok());
      for (int64_t row = 0; row < sizes.Rows(); ++row) {
        const int64_t head = row / sizes.heads / sizes.positions * sizes.heads +
                             row % sizes.heads;
        for (int64_t p = 0; p < sizes.value; ++p) {
          EXPECT_EQ(out[row * sizes.value + p] != TypeParam{-7},
                    head >= begin && head < end)
              << "head " << head;
        }
      }
    });
  }
}

TYPED_TEST(StateScanTest, NothingIsLeftIfAllDecaysAreZero) {
  for (const StateSizes& sizes :
       {StateSizes{1, 65, 17, 1, 1}, StateSizes{1, 65, 2, 16, 16}}) {
    for (const bool diagonal : {false, true}) {
      StateOptions options;
      options.min_decay = options.max_decay = 0;
      options.diagonal = diagonal;
      this->ExpectMatchesReference(StateInputs<TypeParam>(sizes, options));
    }
  }
}

TYPED_TEST(StateScanTest, AllDecaysOne) {
  for (const StateSizes& sizes :
       {StateSizes{1, 4096, 17, 1, 1}, StateSizes{1, 4096, 2, 8, 16}}) {
    for (const bool diagonal : {false, true}) {
      StateOptions options;
      options.min_decay = options.max_decay = 1;
      options.diagonal = diagonal;
      // A sum of 4096 terms in the precision under test.
      this->ExpectMatchesReference(StateInputs<TypeParam>(sizes, options),
                                   10 * kTolerance<TypeParam>);
    }
  }
}

TYPED_TEST(StateScanTest, LongSequence) {
  for (const StateSizes& sizes :
       {StateSizes{1, 4096, 17, 1, 1}, StateSizes{1, 4096, 1, 16, 20}}) {
    StateOptions options;
    options.rank_one = true;
    options.min_decay = 0.8;
    this->ExpectMatchesReference(StateInputs<TypeParam>(sizes, options),
                                 3 * kTolerance<TypeParam>);
  }
}

}  // namespace
}  // namespace limpid::kernels
