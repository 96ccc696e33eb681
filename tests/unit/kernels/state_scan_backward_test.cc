// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <iterator>
#include <limits>
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
class StateScanBackwardTest : public testing::Test {
 protected:
  // Heads [begin, end); `out` gets their gradients.
  static void Backward(const StateInputs<T>& in, int64_t begin, int64_t end,
                       StateGradients<T>& out) {
    StateScanBackward<T> op = in.Backward();
    op.head_begin = begin;
    op.head_end = end;
    out.Point(op);
    Run(op);
  }
  // With scratch memory of just the size that it asks for.
  static void Run(StateScanBackward<T> op) {
    const int64_t size = cpu::StateScanBackwardScratch(
        op.recurrence, op.value_size, op.head_end - op.head_begin);
    std::vector<T> scratch(size + 1, std::numeric_limits<T>::quiet_NaN());
    constexpr T kCanary{12345};
    scratch.back() = kCanary;
    op.scratch = scratch.data();
    EXPECT_TRUE(cpu::Run(op).ok());
    EXPECT_EQ(scratch.back(), kCanary);
  }
  static StateGradients<double> Reference(const StateInputs<T>& in) {
    StateGradients<double> out(in.sizes);
    StateScanBackward<double> op = in.ExactBackward();
    out.Point(op);
    reference::Run(op);
    return out;
  }
  static void ExpectNear(const StateGradients<T>& actual,
                         const StateGradients<double>& expected,
                         double tolerance = 3 * kTolerance<T>) {
    for (size_t i = 0; i < std::size(kStateGradients<T>); ++i) {
      const auto& [name, gradient] = kStateGradients<T>[i];
      EXPECT_TRUE(Near(actual.*gradient,
                       expected.*kStateGradients<double>[i].second, tolerance))
          << name;
    }
  }
  static void ExpectMatchesReference(const StateInputs<T>& in,
                                     double tolerance = 3 * kTolerance<T>) {
    const StateGradients<double> expected = Reference(in);
    ForEachSimdWidth([&] {
      StateGradients<T> actual(in.sizes);
      Backward(in, 0, in.sizes.AllHeads(), actual);
      ExpectNear(actual, expected, tolerance);
    });
  }
};
TYPED_TEST_SUITE(StateScanBackwardTest, Precisions);

TYPED_TEST(StateScanBackwardTest, MatchesReference) {
  for (const StateSizes& sizes : kStateShapes) {
    SCOPED_TRACE(sizes.ToString());
    ForEachStateOption([&](const StateOptions& options) {
      this->ExpectMatchesReference(StateInputs<TypeParam>(sizes, options));
    });
  }
}

TYPED_TEST(StateScanBackwardTest, MatchesReferenceAtAllLengths) {
  for (const int64_t length : kLengths) {
    for (const bool diagonal : {false, true}) {
      StateOptions options;
      options.diagonal = diagonal;
      options.rank_one = true;
      for (StateSizes sizes :
           {StateSizes{2, 1, 19, 2, 1}, StateSizes{1, 1, 3, 8, 6}}) {
        sizes.positions = length;
        SCOPED_TRACE(sizes.ToString());
        this->ExpectMatchesReference(StateInputs<TypeParam>(sizes, options));
      }
    }
  }
}

TYPED_TEST(StateScanBackwardTest, SharesOfHeadsMakeTheWhole) {
  StateOptions options;
  options.diagonal = options.rank_one = true;
  for (const StateSizes& sizes :
       {StateSizes{3, 6, 21, 1, 2}, StateSizes{3, 6, 5, 9, 20}}) {
    SCOPED_TRACE(sizes.ToString());
    const StateInputs<TypeParam> in(sizes, options);
    ForEachSimdWidth([&] {
      const int64_t all = sizes.AllHeads();
      StateGradients<TypeParam> whole(sizes), parts(sizes);
      this->Backward(in, 0, all, whole);
      for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{
               {0, 1}, {1, 1}, {1, all - 4}, {all - 4, all}}) {
        this->Backward(in, begin, end, parts);
      }
      for (const auto& [name, gradient] : kStateGradients<TypeParam>) {
        EXPECT_EQ(parts.*gradient, whole.*gradient) << name;
      }
    });
  }
}

TYPED_TEST(StateScanBackwardTest, WritesItsHeadsOnly) {
  StateOptions options;
  options.diagonal = options.rank_one = true;
  for (const StateSizes& sizes :
       {StateSizes{2, 4, 30, 1, 2}, StateSizes{2, 4, 6, 9, 20}}) {
    SCOPED_TRACE(sizes.ToString());
    const StateInputs<TypeParam> in(sizes, options);
    StateGradients<TypeParam> out(sizes);
    this->Backward(in, 2, sizes.heads + 3, out);
    for (int64_t row = 0; row < sizes.Rows(); ++row) {
      const int64_t head =
          row / sizes.heads / sizes.positions * sizes.heads + row % sizes.heads;
      const bool written = head >= 2 && head < sizes.heads + 3;
      for (const auto* gradient :
           {&out.dquery, &out.dkey, &out.ddecay, &out.dleft, &out.dright}) {
        for (int64_t n = 0; n < sizes.key; ++n) {
          ASSERT_EQ((*gradient)[row * sizes.key + n] != TypeParam{-7}, written)
              << "head " << head;
        }
      }
      for (int64_t p = 0; p < sizes.value; ++p) {
        ASSERT_EQ(out.dvalue[row * sizes.value + p] != TypeParam{-7}, written);
      }
      ASSERT_EQ(out.ddiagonal[row] != TypeParam{-7}, written);
    }
  }
}

TYPED_TEST(StateScanBackwardTest, GradientsThatAreNotWantedAreLeftOut) {
  StateOptions options;
  options.diagonal = options.rank_one = true;
  for (const StateSizes& sizes :
       {StateSizes{1, 9, 21, 1, 2}, StateSizes{1, 9, 2, 9, 5}}) {
    const StateInputs<TypeParam> in(sizes, options);
    StateGradients<TypeParam> all(sizes);
    this->Backward(in, 0, sizes.AllHeads(), all);
    StateGradients<TypeParam> some(sizes);
    StateScanBackward<TypeParam> op = in.Backward();
    some.Point(op);
    op.dkey = op.ddecay = op.dleft = op.dright = op.ddiagonal = nullptr;
    this->Run(op);
    EXPECT_EQ(some.dquery, all.dquery);
    EXPECT_EQ(some.dvalue, all.dvalue);
    op = in.Backward();
    this->Run(op);
  }
}

TYPED_TEST(StateScanBackwardTest, AllDecaysZero) {
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

TYPED_TEST(StateScanBackwardTest, AllDecaysOne) {
  for (const StateSizes& sizes :
       {StateSizes{1, 4096, 9, 1, 1}, StateSizes{1, 4096, 1, 5, 6}}) {
    StateOptions options;
    options.min_decay = options.max_decay = 1;
    this->ExpectMatchesReference(StateInputs<TypeParam>(sizes, options),
                                 20 * kTolerance<TypeParam>);
  }
}

TYPED_TEST(StateScanBackwardTest, LongSequence) {
  for (const StateSizes& sizes :
       {StateSizes{1, 4096, 9, 1, 1}, StateSizes{1, 4096, 1, 5, 6}}) {
    StateOptions options;
    options.rank_one = true;
    options.min_decay = 0.8;
    this->ExpectMatchesReference(StateInputs<TypeParam>(sizes, options),
                                 10 * kTolerance<TypeParam>);
  }
}

// sum(dout * out) by the definition.
double Loss(const StateInputs<double>& in, const StateRecurrence<double>& r,
            const HeadOperand<double>& value) {
  std::vector<double> out(in.sizes.Rows() * in.sizes.value);
  StateScan<double> op = in.ExactScan();
  op.recurrence = r;
  op.value = value;
  op.out = out.data();
  reference::Run(op);
  double loss = 0;
  for (size_t at = 0; at < out.size(); ++at) {
    loss += out[at] * in.dout.exact()[at];
  }
  return loss;
}

TEST(StateScanBackwardDifferenceTest, MatchesFiniteDifferences) {
  for (const StateSizes& sizes :
       {StateSizes{2, 7, 2, 3, 4}, StateSizes{1, 5, 9, 1, 2}}) {
    for (int present = 0; present < 4; ++present) {
      StateOptions options;
      options.rank_one = present & 1;
      options.diagonal = present & 2;
      SCOPED_TRACE(sizes.ToString() + " " + options.ToString());
      const StateInputs<double> in(sizes, options);
      StateGradients<double> actual(sizes);
      StateScanBackward<double> backward = in.Backward();
      actual.Point(backward);
      std::vector<double> scratch(cpu::StateScanBackwardScratch(
          backward.recurrence, sizes.value, sizes.AllHeads()));
      backward.scratch = scratch.data();
      ASSERT_TRUE(cpu::Run(backward).ok());

      // Contiguous operands have the layout of their gradients.
      StateRecurrence<double> r = in.ExactRecurrence();
      HeadOperand<double> value = in.value.Exact();
      const auto check = [&](HeadOperand<double>& operand,
                             const std::vector<double>& gradient,
                             const char* name) {
        SCOPED_TRACE(name);
        constexpr double kStep = 1e-5;
        const double* const saved = operand.data;
        std::vector<double> numbers(saved, saved + gradient.size());
        operand.data = numbers.data();
        for (size_t at = 0; at < gradient.size(); ++at) {
          numbers[at] = saved[at] + kStep;
          const double above = Loss(in, r, value);
          numbers[at] = saved[at] - kStep;
          const double below = Loss(in, r, value);
          numbers[at] = saved[at];
          ASSERT_NEAR(gradient[at], (above - below) / (2 * kStep), 1e-8)
              << "element " << at;
        }
        operand.data = saved;
      };
      check(r.query, actual.dquery, "query");
      check(r.key, actual.dkey, "key");
      check(r.decay, actual.ddecay, "decay");
      check(value, actual.dvalue, "value");
      if (options.rank_one) {
        check(r.left, actual.dleft, "left");
        check(r.right, actual.dright, "right");
      }
      if (options.diagonal) check(r.diagonal, actual.ddiagonal, "diagonal");
    }
  }
}

}  // namespace
}  // namespace limpid::kernels
