// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/cpu/simd_math.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/cpu/simd.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels::cpu {
namespace {

struct ExpKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(std::vector<T>* const& values) {
    T* x = values->data();
    const int64_t size = values->size();
    for (int64_t i = 0; i < size; ++i) x[i] = ExpNonPositive(x[i]);
  }
};

template <typename T>
std::vector<T> Exp(std::vector<T> values) {
  DispatchSimd<T, ExpKernel>(&values);
  return values;
}

template <typename T>
double LargestRelativeError(double lowest, double bound) {
  std::vector<T> x;
  // Dense near 0, where most decays are, and everywhere else.
  for (int i = 0; i <= 200000; ++i) {
    const double part = i / 200000.0;
    x.push_back(static_cast<T>(lowest * part));
    x.push_back(static_cast<T>(lowest * std::pow(part, 6)));
  }
  const std::vector<T> y = Exp(x);
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const long double expected = std::exp(static_cast<long double>(x[i]));
    const double error = static_cast<double>(
        std::fabs(static_cast<long double>(y[i]) / expected - 1));
    if (!(error <= bound)) ADD_FAILURE() << "exp(" << x[i] << ") = " << y[i];
    largest = std::max(largest, error);
  }
  return largest;
}

TEST(ExpNonPositiveTest, FloatIsAccurate) {
  ForEachSimdWidth(
      [] { EXPECT_LT(LargestRelativeError<float>(-87.33, 2e-7), 2e-7); });
}

struct SigmoidKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(std::vector<T>* const& values) {
    T* x = values->data();
    const int64_t size = values->size();
    for (int64_t i = 0; i < size; ++i) x[i] = Sigmoid(x[i]);
  }
};

template <typename T>
void ExpectSigmoidIsAccurate(double bound) {
  std::vector<T> x;
  for (int i = -20000; i <= 20000; ++i) x.push_back(static_cast<T>(i / 250.0));
  ForEachSimdWidth([&] {
    std::vector<T> y = x;
    DispatchSimd<T, SigmoidKernel>(&y);
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = 1 / (1 + std::exp(-static_cast<double>(x[i])));
      EXPECT_NEAR(y[i] / expected, 1, bound) << "sigmoid(" << x[i] << ")";
    }
  });
}

TEST(SigmoidTest, IsAccurate) {
  ExpectSigmoidIsAccurate<float>(5e-7);
  ExpectSigmoidIsAccurate<double>(1e-15);
}

TEST(SigmoidTest, TakesEverything) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Sigmoid(kInfinity), 1);
  EXPECT_EQ(Sigmoid(-kInfinity), 0);
  EXPECT_TRUE(std::isnan(Sigmoid(std::nanf(""))));
}

TEST(ExpNonPositiveTest, DoubleIsAccurate) {
  ForEachSimdWidth(
      [] { EXPECT_LT(LargestRelativeError<double>(-708.39, 4e-16), 4e-16); });
}

TEST(ExpNonPositiveTest, SpecialArguments) {
  ForEachSimdWidth([] {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const std::vector<float> y = Exp<float>(
        {0.0f, -0.0f, -88.0f, -104.0f, -1e30f, -kInfinity, std::nanf("")});
    EXPECT_EQ(y[0], 1.0f);
    EXPECT_EQ(y[1], 1.0f);
    for (int i = 2; i < 6; ++i) EXPECT_EQ(y[i], 0.0f) << i;
    EXPECT_TRUE(std::isnan(y[6]));
    const std::vector<double> z =
        Exp<double>({0.0, -709.0, -1e300, -kInfinity, std::nan("")});
    EXPECT_EQ(z[0], 1.0);
    for (int i = 1; i < 4; ++i) EXPECT_EQ(z[i], 0.0) << i;
    EXPECT_TRUE(std::isnan(z[4]));
  });
}

}  // namespace
}  // namespace limpid::kernels::cpu
