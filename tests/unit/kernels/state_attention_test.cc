// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
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

template <typename Op>
int64_t OutSize(const Op& op) {
  return (op.head_end - op.head_begin) * (op.row_end - op.row_begin) *
         op.recurrence.num_positions;
}

template <typename T>
std::vector<T> Attend(StateAttention<T> op) {
  std::vector<T> out(OutSize(op) + 1, T{-7});
  op.out = out.data();
  EXPECT_TRUE(cpu::Run(op).ok());
  EXPECT_EQ(out.back(), T{-7}) << "wrote behind the end";
  out.pop_back();
  return out;
}

std::vector<double> Reference(StateAttention<double> op) {
  std::vector<double> out(OutSize(op));
  op.out = out.data();
  reference::Run(op);
  return out;
}

template <typename T>
class StateAttentionTest : public testing::Test {
 protected:
  static void ExpectMatchesReference(const StateAttention<T>& op,
                                     const StateAttention<double>& exact,
                                     double tolerance = kTolerance<T>) {
    const std::vector<double> expected = Reference(exact);
    ForEachSimdWidth(
        [&] { EXPECT_TRUE(Near(Attend(op), expected, tolerance)); });
  }
  // The whole matrices, and again one row at a time.
  static void ExpectMatchesReference(const StateInputs<T>& in,
                                     double tolerance = kTolerance<T>) {
    const std::vector<double> expected = Reference(in.ExactAttention());
    ForEachSimdWidth([&] {
      EXPECT_TRUE(Near(Attend(in.Attention()), expected, tolerance));
      const int64_t length = in.sizes.positions;
      std::vector<T> rows(expected.size());
      for (int64_t i = 0; i < length; ++i) {
        StateAttention<T> op = in.Attention();
        op.row_begin = i;
        op.row_end = i + 1;
        const std::vector<T> row = Attend(op);
        for (int64_t h = 0; h < in.sizes.heads; ++h) {
          std::copy_n(row.begin() + h * length, length,
                      rows.begin() + (h * length + i) * length);
        }
      }
      EXPECT_TRUE(Near(rows, expected, tolerance)) << "one row at a time";
    });
  }
};
TYPED_TEST_SUITE(StateAttentionTest, Precisions);

TYPED_TEST(StateAttentionTest, MatchesReference) {
  for (StateSizes sizes : kStateShapes) {
    // There are as many rows as positions.
    sizes.positions = std::min<int64_t>(sizes.positions, 100);
    SCOPED_TRACE(sizes.ToString());
    ForEachStateOption([&](const StateOptions& options) {
      this->ExpectMatchesReference(StateInputs<TypeParam>(sizes, options));
    });
  }
}

TYPED_TEST(StateAttentionTest, MatchesReferenceAtAllLengths) {
  for (const int64_t length : kLengths) {
    for (int present = 0; present < 4; ++present) {
      StateOptions options;
      options.rank_one = present & 1;
      options.diagonal = present & 2;
      const StateSizes sizes{1, length, 2, 5, 1};
      SCOPED_TRACE(sizes.ToString() + " " + options.ToString());
      this->ExpectMatchesReference(StateInputs<TypeParam>(sizes, options));
    }
  }
}

TYPED_TEST(StateAttentionTest, LargestState) {
  StateOptions options;
  options.rank_one = true;
  this->ExpectMatchesReference(
      StateInputs<TypeParam>({1, 70, 2, kMaxStateSize, 1}, options));
}

TYPED_TEST(StateAttentionTest, RangesOfRowsAndHeads) {
  for (int present = 0; present < 4; ++present) {
    StateOptions options;
    options.rank_one = present & 1;
    options.diagonal = present & 2;
    const StateInputs<TypeParam> in({2, 131, 20, 5, 1}, options);
    for (const auto& [row_begin, row_end] :
         std::vector<std::pair<int, int>>{{0, 1},
                                          {0, 9},
                                          {5, 8},
                                          {31, 33},
                                          {27, 47},
                                          {33, 97},
                                          {64, 96},
                                          {130, 131},
                                          {7, 7}}) {
      for (const auto& [head_begin, head_end] :
           std::vector<std::pair<int, int>>{{0, 1}, {2, 20}, {7, 9}, {4, 4}}) {
        SCOPED_TRACE(absl::StrCat(options.ToString(), ", rows ", row_begin,
                                  " to ", row_end, ", heads ", head_begin,
                                  " to ", head_end));
        auto op = in.Attention();
        auto exact = in.ExactAttention();
        op.row_begin = exact.row_begin = row_begin;
        op.row_end = exact.row_end = row_end;
        op.head_begin = exact.head_begin = head_begin;
        op.head_end = exact.head_end = head_end;
        op.sequence = exact.sequence = row_begin % 2;
        this->ExpectMatchesReference(op, exact);
      }
    }
  }
}

TYPED_TEST(StateAttentionTest, NothingAboveTheDiagonal) {
  for (const bool diagonal : {false, true}) {
    StateOptions options;
    options.diagonal = diagonal;
    const StateInputs<TypeParam> in({1, 99, 2, 16, 1}, options);
    const auto out = Attend(in.Attention());
    for (int64_t row = 0; row < 2 * 99; ++row) {
      for (int64_t j = row % 99 + 1; j < 99; ++j) {
        ASSERT_EQ(out[row * 99 + j], TypeParam{0});
      }
    }
  }
}

// The identity that makes it an explanation.
TYPED_TEST(StateAttentionTest, TimesValuesIsTheOutput) {
  for (int present = 0; present < 4; ++present) {
    StateOptions options;
    options.rank_one = present & 1;
    options.diagonal = present & 2;
    SCOPED_TRACE(options.ToString());
    const StateSizes sizes{1, 100, 3, 16, 8};
    const StateInputs<TypeParam> in(sizes, options);
    const auto matrices = Attend(in.Attention());
    std::vector<TypeParam> out(sizes.Rows() * sizes.value);
    StateScan<TypeParam> scan = in.Scan();
    scan.out = out.data();
    ASSERT_TRUE(cpu::Run(scan).ok());
    std::vector<double> expected(out.size());
    for (int64_t i = 0; i < sizes.positions; ++i) {
      for (int64_t h = 0; h < sizes.heads; ++h) {
        for (int64_t j = 0; j < sizes.positions; ++j) {
          for (int64_t p = 0; p < sizes.value; ++p) {
            expected[(i * sizes.heads + h) * sizes.value + p] +=
                double{matrices[(h * 100 + i) * 100 + j]} *
                in.value.values()
                    .exact()[(j * sizes.heads + h) * sizes.value + p];
          }
        }
      }
    }
    EXPECT_TRUE(Near(out, expected));
  }
}

TYPED_TEST(StateAttentionTest, ExtremeDecays) {
  for (const double decay : {0.0, 1.0}) {
    for (const bool diagonal : {false, true}) {
      StateOptions options;
      options.min_decay = options.max_decay = decay;
      options.diagonal = diagonal;
      this->ExpectMatchesReference(
          StateInputs<TypeParam>({1, 100, 3, 16, 1}, options));
    }
  }
}

// Decays at which entries far from the diagonal neither vanish nor stay: errors
// of products over the whole length would show.
TYPED_TEST(StateAttentionTest, LongSequence) {
  for (const bool rank_one : {false, true}) {
    StateOptions options;
    options.rank_one = rank_one;
    options.min_decay = 0.999;
    const StateInputs<TypeParam> in({1, 4096, 1, 8, 1}, options);
    for (const int64_t num_rows : {1, 40}) {
      SCOPED_TRACE(absl::StrCat(options.ToString(), ", rows: ", num_rows));
      auto op = in.Attention();
      auto exact = in.ExactAttention();
      op.row_begin = exact.row_begin = 4096 - num_rows;
      this->ExpectMatchesReference(op, exact, 10 * kTolerance<TypeParam>);
    }
  }
}

TYPED_TEST(StateAttentionTest, LongSequenceThatForgetsFast) {
  StateOptions options;
  options.min_decay = 0;
  options.max_decay = 0.5;
  const StateInputs<TypeParam> in({1, 4096, 1, 16, 1}, options);
  auto op = in.Attention();
  auto exact = in.ExactAttention();
  op.row_begin = exact.row_begin = 4096 - 40;
  this->ExpectMatchesReference(op, exact);
}

}  // namespace
}  // namespace limpid::kernels
