// SPDX-License-Identifier: Apache-2.0
//
// What the lanes of a warp do together.
#pragma once

#include <cuda_runtime.h>

namespace limpid::kernels::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

// The number of a thread's warp in its block, known to the compiler to be the
// same for all of its lanes: behind a branch on threadIdx.x it would guard
// every exchange between lanes against those that took another way.
__device__ inline int WarpIndex() {
  return __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 32, 0);
}

// Sums over the four lanes of a quad of four numbers: lane t gets number t.
__device__ inline float SumOfQuad(const float (&x)[4], int t) {
  const bool upper = (t & 2) != 0, odd = (t & 1) != 0;
  float first = upper ? x[2] : x[0], second = upper ? x[3] : x[1];
  first += __shfl_xor_sync(kAllLanes, upper ? x[0] : x[2], 2);
  second += __shfl_xor_sync(kAllLanes, upper ? x[1] : x[3], 2);
  return (odd ? second : first) +
         __shfl_xor_sync(kAllLanes, odd ? first : second, 1);
}

}  // namespace limpid::kernels::cuda
