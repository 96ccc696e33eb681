// SPDX-License-Identifier: Apache-2.0
//
// The inner loop of the chunked attention: a small product of matrices whose
// sums stay in registers.
#pragma once

#include <cstdint>

#include "server/kernels/cpu/simd.h"

namespace limpid::kernels::cpu {

// out[r, w] = sum over n < depth of left[n, r] right[n, w], with at least one
// n. Columns are a multiple of a register; rows times registers per row, and a
// few more, must fit the processor's registers.
template <int kRows, int kColumns, typename T>
LIMPID_INLINE void TileProduct(const T* left, int64_t left_stride,
                               const T* right, int64_t right_stride,
                               int64_t depth, T* __restrict out,
                               int64_t out_stride) {
  // Only indexed by constants once the loops are written out: else it would
  // live in memory.
  T sum[kRows][kColumns];
  LIMPID_UNROLL
  for (int r = 0; r < kRows; ++r) {
    for (int w = 0; w < kColumns; ++w) sum[r][w] = left[r] * right[w];
  }
  for (int64_t n = 1; n < depth; ++n) {
    LIMPID_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const T factor = left[n * left_stride + r];
      for (int w = 0; w < kColumns; ++w) {
        sum[r][w] += factor * right[n * right_stride + w];
      }
    }
  }
  LIMPID_UNROLL
  for (int r = 0; r < kRows; ++r) {
    for (int w = 0; w < kColumns; ++w) out[r * out_stride + w] = sum[r][w];
  }
}

}  // namespace limpid::kernels::cpu
