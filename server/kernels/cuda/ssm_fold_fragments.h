// SPDX-License-Identifier: Apache-2.0
//
// Factors of SsmAttentionFold as fragments of mma.m16n8k16. Lane 4 g + t has
// states 4t to 4t + 3 in the places 2t, 2t + 1, 2t + 8 and 2t + 9, so that they
// are neighbours in memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "server/kernels/cuda/mma.h"

namespace limpid::kernels::cuda {

// What a lane multiplies with of a channel: of rows g and g + 8.
struct Queries {
  float of[2][4];

  __device__ LeftHalves Halves() const {
    LeftHalves out;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int k = 0; k < 4; k += 2) {
        const HalfPairs pairs = Split(of[h][k], of[h][k + 1]);
        out.high[h + k] = pairs.high;
        out.low[h + k] = pairs.low;
      }
    }
    return out;
  }
};

// Writes a row's or column's states of lane t where they belong, see
// ColumnFactors.
__device__ inline void StoreHalves(const float (&states)[4], int t, int at,
                                   uint4 (&out)[4][8]) {
  const HalfPairs first = Split(states[0], states[1]);
  const HalfPairs second = Split(states[2], states[3]);
  const uint32_t words[4] = {first.high, second.high, first.low, second.low};
#pragma unroll
  for (int which = 0; which < 4; ++which) {
    reinterpret_cast<uint32_t*>(&out[which][at])[t] = words[which];
  }
}

// Keys of 8 columns in shared memory, see ColumnFactors, as a warp multiplies
// with them: column g, high halves and then low ones.
__device__ inline uint4 LoadKeys(const uint4 (&keys)[4][8], int lane) {
  const uint32_t address = static_cast<uint32_t>(
      __cvta_generic_to_shared(&keys[lane / 8][lane % 8]));
  uint4 out;
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w)
      : "r"(address)
      : "memory");
  return out;
}

}  // namespace limpid::kernels::cuda
