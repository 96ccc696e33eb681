// SPDX-License-Identifier: Apache-2.0
//
// Rows of implicit attention by running backwards from them, for as many
// channels at once as a register holds. A row keeps N numbers per channel,
// q[n] = c_p[n] exp(a[n] (delta_{j+1} + ... + delta_p)), and nothing of size L.
#pragma once

#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/simd.h"
#include "server/kernels/cpu/simd_math.h"
#include "server/kernels/cpu/ssm_attention.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {

// Positions that go through the convolution and to memory together.
inline constexpr int kTile = 16;
// The tile, and behind it the first positions of the tile to its right.
inline constexpr int kSpan = kTile + kMaxConvWidth;

template <int kWidth>
struct Recursive {
  // One row of channels [first, first + count), tile by tile from the row's own
  // to column 0. sink.Add(begin, columns, before, tile) gets the entries of
  // columns [begin, begin + columns), channels side by side: [kTile, kWidth]
  // before convolution and scale of the row, and after them. Those past the row
  // are zeros.
  template <typename T, typename Sink>
  static LIMPID_INLINE void Block(const SsmAttention<T>& op, int64_t first,
                                  int count, int64_t row, Sink& sink) {
    const SelectiveSsm<T>& ssm = op.ssm;
    const int64_t num_states = ssm.state_size;
    const int64_t taps = ConvWidth(op);
    alignas(64) T a[kMaxStateSize * kWidth];
    alignas(64) T q[kMaxStateSize * kWidth];
    alignas(64) T tap[kMaxConvWidth * kWidth] = {};
    alignas(64) T row_scale[kWidth] = {};
    for (int64_t n = 0; n < num_states; ++n) {
      for (int w = 0; w < kWidth; ++w) {
        a[n * kWidth + w] =
            w < count ? ssm.a[(first + w) * num_states + n] : T{0};
        q[n * kWidth + w] = ssm.c[row * ssm.c_stride + n];
      }
    }
    for (int w = 0; w < count; ++w) {
      row_scale[w] = RowScale(op, row, first + w);
      for (int64_t d = 0; d < taps; ++d) {
        tap[d * kWidth + w] = ConvTap(op, first + w, d);
      }
    }

    // Entries before the convolution, [kSpan, kWidth].
    alignas(64) T entries[kSpan * kWidth] = {};
    for (int64_t begin = row / kTile * kTile; begin >= 0; begin -= kTile) {
      for (int64_t j = std::min(begin + kTile - 1, row); j >= begin; --j) {
        Step(op, first, count, j, j == row, a, q,
             entries + (j - begin) * kWidth);
      }
      alignas(64) T tile[kTile * kWidth];
      Convolve(entries, tap, taps, row_scale, tile);
      sink.Add(begin, std::min<int64_t>(kTile, ssm.num_positions - begin),
               entries, tile);
      std::copy_n(entries, kMaxConvWidth * kWidth, entries + kTile * kWidth);
    }
  }

  // entry = source_j delta_j sum_n q[n] b_j[n], on the diagonal with the skip;
  // then q to the other side of position j.
  template <typename T>
  static LIMPID_INLINE void Step(const SsmAttention<T>& op, int64_t first,
                                 int count, int64_t j, bool diagonal,
                                 const T* a, T* __restrict q,
                                 T* __restrict entry) {
    const SelectiveSsm<T>& ssm = op.ssm;
    alignas(64) T delta[kWidth];
    LoadLanes<kWidth>(ssm.delta + j * ssm.delta_stride + first, count, delta);
    const T* b = ssm.b + j * ssm.b_stride;
    alignas(64) T sum[kWidth] = {};
    for (int64_t n = 0; n < ssm.state_size; ++n) {
      const T b_n = b[n];
      LIMPID_IVDEP
      for (int w = 0; w < kWidth; ++w) {
        const T q_n = q[n * kWidth + w];
        sum[w] += q_n * b_n;
        q[n * kWidth + w] = q_n * ExpNonPositive(delta[w] * a[n * kWidth + w]);
      }
    }
    LIMPID_KEEP_LOOP
    for (int w = 0; w < kWidth; ++w) sum[w] *= delta[w];
    if (diagonal && ssm.skip != nullptr) {
      for (int w = 0; w < count; ++w) sum[w] += ssm.skip[first + w];
    }
    if (op.source_scale != nullptr) {
      alignas(64) T source[kWidth];
      LoadLanes<kWidth>(op.source_scale + j * op.source_stride + first, count,
                        source);
      LIMPID_KEEP_LOOP
      for (int w = 0; w < kWidth; ++w) sum[w] *= source[w];
    }
    for (int w = 0; w < kWidth; ++w) entry[w] = sum[w];
  }

  template <typename T>
  static LIMPID_INLINE void Convolve(const T* entries, const T* tap,
                                     int64_t taps, const T* row_scale,
                                     T* __restrict tile) {
    for (int j = 0; j < kTile; ++j) {
      alignas(64) T sum[kWidth] = {};
      for (int64_t d = 0; d < taps; ++d) {
        LIMPID_KEEP_LOOP
        for (int w = 0; w < kWidth; ++w) {
          sum[w] += tap[d * kWidth + w] * entries[(j + d) * kWidth + w];
        }
      }
      LIMPID_KEEP_LOOP
      for (int w = 0; w < kWidth; ++w) {
        tile[j * kWidth + w] = sum[w] * row_scale[w];
      }
    }
  }
};

}  // namespace limpid::kernels::cpu
