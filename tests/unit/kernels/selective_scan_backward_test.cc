// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/reference/ssm.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {
namespace {

template <typename T>
struct Gradients {
  explicit Gradients(const Sizes& sizes)
      : du(sizes.positions * sizes.channels),
        ddelta(du.size()),
        db(sizes.positions * sizes.states),
        dc(db.size()) {}
  std::vector<T> du, ddelta, db, dc;
};

template <typename T>
class SelectiveScanBackwardTest : public testing::Test {
 protected:
  static void Backward(const Inputs<T>& in, int64_t begin, int64_t end,
                       Gradients<T>& out) {
    const int64_t size =
        cpu::SelectiveScanBackwardScratch(in.Ssm(), end - begin);
    constexpr T kCanary{12345};
    std::vector<T> scratch(size + 1, kCanary);
    const SelectiveScanBackward<T> op{
        in.Ssm(),          begin,         end,           in.u.data(),
        in.stride,         in.row.data(), in.stride,     out.du.data(),
        out.ddelta.data(), out.db.data(), out.dc.data(), scratch.data()};
    EXPECT_TRUE(cpu::Run(op).ok());
    EXPECT_EQ(scratch.back(), kCanary);
  }
  static Gradients<double> Reference(const Inputs<T>& in) {
    Gradients<double> out(in.sizes);
    reference::Run(SelectiveScanBackward<double>{
        in.ExactSsm(), 0, in.sizes.channels, in.u.exact(), in.stride,
        in.row.exact(), in.stride, out.du.data(), out.ddelta.data(),
        out.db.data(), out.dc.data(), nullptr});
    return out;
  }
  static void ExpectNear(const Gradients<T>& actual,
                         const Gradients<double>& expected,
                         double tolerance = 3 * kTolerance<T>) {
    EXPECT_TRUE(Near(actual.du, expected.du, tolerance)) << "du";
    EXPECT_TRUE(Near(actual.ddelta, expected.ddelta, tolerance)) << "ddelta";
    EXPECT_TRUE(Near(actual.db, expected.db, tolerance)) << "db";
    EXPECT_TRUE(Near(actual.dc, expected.dc, tolerance)) << "dc";
  }
};
TYPED_TEST_SUITE(SelectiveScanBackwardTest, Precisions);

TYPED_TEST(SelectiveScanBackwardTest, MatchesReference) {
  for (const int64_t length : kLengths) {
    for (const auto& [channels, states] :
         std::vector<std::pair<int, int>>{{1, 1}, {3, 5}, {17, 16}, {35, 17}}) {
      const Inputs<TypeParam> in(Sizes{length, channels, states});
      SCOPED_TRACE(in.sizes.ToString());
      const Gradients<double> expected = this->Reference(in);
      ForEachSimdWidth([&] {
        Gradients<TypeParam> actual(in.sizes);
        this->Backward(in, 0, in.sizes.channels, actual);
        this->ExpectNear(actual, expected);
      });
    }
  }
}

TYPED_TEST(SelectiveScanBackwardTest, RangesOfChannelsAddUp) {
  const Inputs<TypeParam> in(Sizes{33, 40, 5});
  Gradients<TypeParam> actual(in.sizes);
  this->Backward(in, 0, 21, actual);
  this->Backward(in, 21, 21, actual);
  this->Backward(in, 21, 40, actual);
  this->ExpectNear(actual, this->Reference(in));
}

TYPED_TEST(SelectiveScanBackwardTest, AllDecaysZero) {
  const Inputs<TypeParam> in(Sizes{65, 17, 16}, /*max_delta=*/1e3,
                             /*max_decay_rate=*/1e6);
  Gradients<TypeParam> actual(in.sizes);
  this->Backward(in, 0, 17, actual);
  this->ExpectNear(actual, this->Reference(in));
}

TYPED_TEST(SelectiveScanBackwardTest, LongSequence) {
  const Inputs<TypeParam> in(Sizes{4096, 5, 4}, /*max_delta=*/0.01);
  Gradients<TypeParam> actual(in.sizes);
  this->Backward(in, 0, 5, actual);
  this->ExpectNear(actual, this->Reference(in), 10 * kTolerance<TypeParam>);
}

// sum(dy * y) as a function of everything that has a gradient.
double Loss(const Inputs<double>& in, const std::vector<double>& u,
            const std::vector<double>& delta, const std::vector<double>& b,
            const std::vector<double>& c) {
  SelectiveSsm<double> ssm = in.Ssm();
  ssm.delta = delta.data();
  ssm.b = b.data();
  ssm.c = c.data();
  const int64_t d = in.sizes.channels;
  std::vector<double> y(in.sizes.positions * d);
  EXPECT_TRUE(cpu::Run(SelectiveScan<double>{ssm, 0, d, u.data(), in.stride,
                                             y.data(), d})
                  .ok());
  double loss = 0;
  for (int64_t i = 0; i < in.sizes.positions; ++i) {
    for (int64_t ch = 0; ch < d; ++ch) {
      loss += y[i * d + ch] * in.row.data()[i * in.stride + ch];
    }
  }
  return loss;
}

TEST(SelectiveScanBackwardDifferenceTest, MatchesFiniteDifferences) {
  const Sizes sizes{19, 5, 3};
  const Inputs<double> in(sizes);
  const int64_t num_values = sizes.positions * in.stride;
  const int64_t num_states = sizes.positions * in.state_stride;
  std::vector<double> u(in.u.data(), in.u.data() + num_values);
  std::vector<double> delta(in.delta.data(), in.delta.data() + num_values);
  std::vector<double> b(in.b.data(), in.b.data() + num_states);
  std::vector<double> c(in.c.data(), in.c.data() + num_states);

  Gradients<double> actual(sizes);
  std::vector<double> scratch(
      cpu::SelectiveScanBackwardScratch(in.Ssm(), sizes.channels));
  ASSERT_TRUE(cpu::Run(SelectiveScanBackward<double>{
                           in.Ssm(), 0, sizes.channels, u.data(), in.stride,
                           in.row.data(), in.stride, actual.du.data(),
                           actual.ddelta.data(), actual.db.data(),
                           actual.dc.data(), scratch.data()})
                  .ok());

  const auto check = [&](std::vector<double>& values, int64_t columns,
                         int64_t stride, const std::vector<double>& gradient) {
    constexpr double kStep = 1e-5;
    for (int64_t i = 0; i < sizes.positions; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        double& value = values[i * stride + j];
        const double saved = value;
        value = saved + kStep;
        const double above = Loss(in, u, delta, b, c);
        value = saved - kStep;
        const double below = Loss(in, u, delta, b, c);
        value = saved;
        ASSERT_NEAR(gradient[i * columns + j], (above - below) / (2 * kStep),
                    1e-6)
            << "position " << i << ", column " << j;
      }
    }
  };
  {
    SCOPED_TRACE("u");
    check(u, sizes.channels, in.stride, actual.du);
  }
  {
    SCOPED_TRACE("delta");
    check(delta, sizes.channels, in.stride, actual.ddelta);
  }
  {
    SCOPED_TRACE("b");
    check(b, sizes.states, in.state_stride, actual.db);
  }
  SCOPED_TRACE("c");
  check(c, sizes.states, in.state_stride, actual.dc);
}

}  // namespace
}  // namespace limpid::kernels
