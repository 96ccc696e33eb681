// SPDX-License-Identifier: Apache-2.0
//
// Products of small matrices on tensor cores, with float32 numbers as pairs of
// halves.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace limpid::kernels::cuda {

// Two neighbouring numbers, as the high or the low halves of them.
struct HalfPairs {
  uint32_t high;
  uint32_t low;
};

__device__ inline HalfPairs Split(float x, float y) {
  const __half2 high = __floats2half2_rn(x, y);
  const float2 rounded = __half22float2(high);
  const __half2 low = __floats2half2_rn(x - rounded.x, y - rounded.y);
  return {*reinterpret_cast<const uint32_t*>(&high),
          *reinterpret_cast<const uint32_t*>(&low)};
}

// sum [16, 8] += a [16, 16] b [16, 8], one warp. With lane = 4 g + t, `a` has
// rows g, g + 8 by columns 2t, 2t + 1, then the same by 2t + 8, 2t + 9; b has
// rows 2t, 2t + 1, then 2t + 8, 2t + 9 of column g; and the sum has columns 2t
// and 2t + 1 of row g, then of row g + 8.
__device__ inline void MultiplyHalves(float (&sum)[4], const uint32_t (&a)[4],
                                      uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The left factor of a product, 16 rows by 16 columns.
struct LeftHalves {
  uint32_t high[4];
  uint32_t low[4];
};

// The product in float32, to 22 bits of its factors; `key` is in the order
// of MultiplyHalves, high halves and then low ones.
__device__ inline void MultiplyPairs(float (&sum)[4], const LeftHalves& left,
                                     const uint4& key) {
  sum[0] = sum[1] = sum[2] = sum[3] = 0;
  MultiplyHalves(sum, left.low, key.x, key.y);
  MultiplyHalves(sum, left.high, key.z, key.w);
  MultiplyHalves(sum, left.high, key.x, key.y);
}

// sum + a b + c d, as two operations: written with * and + it takes three.
__device__ inline float AddProducts(float sum, float a, float b, float c,
                                    float d) {
  return fmaf(c, d, fmaf(a, b, sum));
}

// exp(x) for x <= 0, given x log2(e); relative error below 2^-22, and 0 where
// it would be denormal.
__device__ inline float ExpOfLog2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
inline constexpr float kLog2E = 1.44269504088896341f;

// 2^(bits - e) for x in [2^e, 2^(e + 1)): brings x to below 2^(bits + 1). Not
// infinite or denormal whatever x is.
__device__ inline float PowerOfTwoScale(float x, int bits) {
  const int exponent = static_cast<int>(__float_as_uint(x) >> 23 & 255u) - 127;
  const int wanted = min(max(bits - exponent, -126), 126);
  return __uint_as_float(static_cast<uint32_t>(wanted + 127) << 23);
}

}  // namespace limpid::kernels::cuda
