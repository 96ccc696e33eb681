// SPDX-License-Identifier: Apache-2.0
//
// Exponential and what is made of it, for loops over neighbours in vector
// registers: no table, no branch, no call.
#pragma once

#include <bit>
#include <cstdint>

#include "server/kernels/cpu/simd.h"

namespace limpid::kernels::cpu {

// exp(x) for x <= 0, relative error below 2e-7; 0 where the result would be
// denormal. NaN stays NaN.
LIMPID_INLINE float ExpNonPositive(float x) {
  constexpr float kLog2E = 0x1.715476p+0f;
  // ln 2 in two parts, the first with so few bits that its product with an
  // exponent is exact.
  constexpr float kLn2High = 0x1.62e4p-1f;
  constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  constexpr float kSmallest = -0x1.5d589ep+6f;  // ln 2^-126
  // Adding it rounds to an integer that then sits in the low bits.
  constexpr float kRound = 0x1.8p+23f;

  const float shifted = x * kLog2E + kRound;
  const float exponent = shifted - kRound;
  const float r = (x - exponent * kLn2High) - exponent * kLn2Low;
  // 1 + r + r^2 q(r), the best q of degree 4 for |r| <= ln(2) / 2; summed in an
  // order with a short chain of dependences. The 1 comes last: it is where the
  // digits are lost.
  const float r2 = r * r;
  const float low = 0x1.555492p-3f * r + 0x1.fffffcp-2f;
  const float middle = 0x1.1239d4p-7f * r + 0x1.5558f2p-5f;
  const float high = 0x1.6a244cp-10f * r2 + middle;
  const float power = (high * r2 + low) * r2 + r + 1.0f;
  const float scale = std::bit_cast<float>(
      (std::bit_cast<uint32_t>(shifted) + uint32_t{127}) << 23);
  const float result = power * scale;
  return x < kSmallest ? 0.0f : result;
}

// The same in double precision, relative error below 4e-16.
LIMPID_INLINE double ExpNonPositive(double x) {
  constexpr double kLog2E = 0x1.71547652b82fep+0;
  constexpr double kLn2High = 0x1.62e42fefap-1;
  constexpr double kLn2Low = 0x1.cf79abc9e3b3ap-40;
  constexpr double kSmallest = -0x1.6232bdd7abcd2p+9;  // ln 2^-1022
  constexpr double kRound = 0x1.8p+52;

  const double shifted = x * kLog2E + kRound;
  const double exponent = shifted - kRound;
  const double r = (x - exponent * kLn2High) - exponent * kLn2Low;
  // Taylor's series: at degree 13 its error is far below the rounding.
  double q = 1.0 / 6227020800.0;
  q = q * r + 1.0 / 479001600.0;
  q = q * r + 1.0 / 39916800.0;
  q = q * r + 1.0 / 3628800.0;
  q = q * r + 1.0 / 362880.0;
  q = q * r + 1.0 / 40320.0;
  q = q * r + 1.0 / 5040.0;
  q = q * r + 1.0 / 720.0;
  q = q * r + 1.0 / 120.0;
  q = q * r + 1.0 / 24.0;
  q = q * r + 1.0 / 6.0;
  q = q * r + 0.5;
  const double power = (q * r) * r + r + 1.0;
  const double scale = std::bit_cast<double>(
      (std::bit_cast<uint64_t>(shifted) + uint64_t{1023}) << 52);
  const double result = power * scale;
  return x < kSmallest ? 0.0 : result;
}

// 1 / (1 + exp(-x)), for any x. NaN stays NaN.
template <typename T>
LIMPID_INLINE T Sigmoid(T x) {
  const T e = ExpNonPositive(x < T{0} ? x : -x);
  const T top = x < T{0} ? e : T{1};
  return top / (T{1} + e);
}

}  // namespace limpid::kernels::cpu
