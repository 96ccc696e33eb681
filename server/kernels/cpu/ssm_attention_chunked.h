// SPDX-License-Identifier: Apache-2.0
//
// Implicit attention as products of matrices (spec: method B), one channel at
// a time. Rows come in chunks. For a chunk that starts at row b, an entry left
// of it is
//
//   alpha[i, j] = sum_n Q[n, i] K[n, j]                        (j < b <= i)
//   Q[n, i] = row_scale_i c_i[n] exp(a[n] (delta_b + ... + delta_i))
//   K[n, j] = sum_d tap_d exp(a[n] (delta_{j+d+1} + ... + delta_{b-1}))
//                   source_{j+d} delta_{j+d} b_{j+d}[n]        (j + d < b)
//
// so neither factor has a positive exponent, and the convolution and all
// scales cost nothing per entry. Keys inside the chunk are decayed row by row,
// their products go through the convolution and are added; it reaches at most
// kPad columns to the left of the chunk. Sums of delta never run over more than
// one chunk, except in double precision: a float32 sum over 4096 positions
// would cost four digits.
#pragma once

#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/simd.h"
#include "server/kernels/cpu/simd_math.h"
#include "server/kernels/cpu/ssm_attention.h"
#include "server/kernels/cpu/ssm_attention_workspace.h"
#include "server/kernels/cpu/tile_product.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {

template <int kBytes>
struct Chunked {
  // A tile of Q K has kRows x kPanel sums: they and a row of K fill the
  // registers but for a few.
  static constexpr int kRows = kBytes == kWideBytes ? 8 : 4;
  template <typename T>
  static constexpr int kPanel = 2 * kLanes<T, kBytes>;

  // out[c, i] = in[i, c] for kGroup neighbouring columns of `in`.
  template <typename T>
  static LIMPID_INLINE void Transpose(const T* in, int64_t in_stride,
                                      int64_t begin, int64_t end, int count,
                                      T* out, int64_t out_stride) {
    for (int64_t i = begin; i < end; ++i) {
      for (int w = 0; w < count; ++w) {
        out[w * out_stride + i] = in[i * in_stride + w];
      }
    }
  }

  // All channels of the op, one after the other. sink.Begin(channel), and then
  // for every chunk: sink.Rows(row) is where its rows are to be written, at
  // distances of L, and sink.Done(row, rows) says that they are.
  template <typename T, typename Sink>
  static LIMPID_INLINE void Call(Workspace<T>& work, Sink& sink) {
    const SsmAttention<T>& op = work.op;
    const SelectiveSsm<T>& ssm = op.ssm;
    for (int64_t n = 0; n < ssm.state_size; ++n) {
      T* b = work.b.data() + n * work.stride;
      T* c = work.c.data() + n * work.stride;
      Transpose(ssm.b + n, ssm.b_stride, 0, op.row_end, 1, b, work.stride);
      Transpose(ssm.c + n, ssm.c_stride, op.row_begin, op.row_end, 1, c,
                work.stride);
      // The last chunk reads on to its full size.
      std::fill_n(b + op.row_end, kChunk, T{0});
      std::fill_n(c + op.row_end, kChunk, T{0});
    }
    if (op.source_scale == nullptr) {
      std::fill_n(work.source.data(), work.group * work.stride, T{1});
    }
    if (op.row_scale == nullptr) {
      std::fill_n(work.row_scale.data(), work.group * work.stride, T{1});
    }
    for (int64_t first = op.channel_begin; first < op.channel_end;
         first += work.group) {
      const int count =
          static_cast<int>(std::min(work.group, op.channel_end - first));
      Transpose(ssm.delta + first, ssm.delta_stride, 0, op.row_end, count,
                work.delta.data(), work.stride);
      if (op.source_scale != nullptr) {
        Transpose(op.source_scale + first, op.source_stride, 0, op.row_end,
                  count, work.source.data(), work.stride);
      }
      if (op.row_scale != nullptr) {
        Transpose(op.row_scale + first, op.row_stride, op.row_begin, op.row_end,
                  count, work.row_scale.data(), work.stride);
      }
      for (int w = 0; w < count; ++w) {
        sink.Begin(first + w);
        Channel(work, first + w, w, sink);
      }
    }
  }

  template <typename T, typename Sink>
  static LIMPID_INLINE void Channel(Workspace<T>& work, int64_t channel,
                                    int slot, Sink& sink) {
    const SsmAttention<T>& op = work.op;
    const T* a = op.ssm.a + channel * work.num_states;
    const T* delta = work.delta.data() + slot * work.stride;
    const T* source = work.source.data() + slot * work.stride;
    const T* row_scale = work.row_scale.data() + slot * work.stride;
    work.skip = op.ssm.skip == nullptr ? T{0} : op.ssm.skip[channel];
    for (int d = 0; d < ConvWidth(op); ++d) {
      work.tap[d] = ConvTap(op, channel, d);
    }
    T* input = work.input.data();
    for (int64_t j = 0; j < op.row_end; ++j) input[j] = source[j] * delta[j];

    StartKeys(work, a, delta);
    for (int64_t b = op.row_begin; b < op.row_end; b += kChunk) {
      const int rows =
          static_cast<int>(std::min<int64_t>(kChunk, op.row_end - b));
      T* const out_row = sink.Rows(b);
      StartChunk(work, a, delta + b, row_scale + b, b, rows);
      MultiplyLeft(work, b, rows, out_row);
      MultiplyInside(work, source + b, row_scale + b, b, rows, out_row);
      AppendKeys(work, b);
      sink.Done(b, rows);
    }
  }

  // K for the boundary row_begin.
  template <typename T>
  static LIMPID_INLINE void StartKeys(Workspace<T>& work, const T* a,
                                      const T* delta) {
    const int64_t end = work.op.row_begin;
    const int64_t taps = ConvWidth(work.op);
    T* __restrict suffix = work.suffix.data();
    T* __restrict raw = work.raw_key.data();
    const T* input = work.input.data();
    std::fill_n(work.keys.data(), work.num_states * work.stride, T{0});
    if (end == 0) return;
    double sum = 0;
    for (int64_t j = end - 1; j >= 0; --j) {
      suffix[j] = static_cast<T>(sum);
      sum += delta[j];
    }
    std::fill_n(raw + end, kPad, T{0});
    for (int64_t n = 0; n < work.num_states; ++n) {
      const T a_n = a[n];
      const T* b = work.b.data() + n * work.stride;
      T* __restrict key = work.keys.data() + n * work.stride + kPad;
      for (int64_t j = 0; j < end; ++j) {
        raw[j] = input[j] * b[j] * ExpNonPositive(a_n * suffix[j]);
      }
      for (int64_t d = 0; d < taps; ++d) {
        const T tap = work.tap[d];
        for (int64_t j = 0; j < end; ++j) key[j] += tap * raw[j + d];
      }
    }
  }

  // Q, and the decays and undecayed keys inside the chunk. Rows past the last
  // one have no key and a query of no meaning.
  template <typename T>
  static LIMPID_INLINE void StartChunk(Workspace<T>& work, const T* a,
                                       const T* delta, const T* row_scale,
                                       int64_t b, int rows) {
    alignas(64) T step[kChunk] = {};
    alignas(64) T sum[kChunk] = {};
    alignas(64) T scale[kChunk] = {};
    alignas(64) T input[kChunk] = {};
    double running = 0;
    for (int i = 0; i < rows; ++i) {
      running += delta[i];
      step[i] = delta[i];
      sum[i] = static_cast<T>(running);
      scale[i] = row_scale[i];
      input[i] = work.input[b + i];
    }
    for (int64_t n = 0; n < work.num_states; ++n) {
      const T a_n = a[n];
      const T* b_n = work.b.data() + n * work.stride + b;
      const T* c_n = work.c.data() + n * work.stride + b;
      T* __restrict query = work.query.data() + n * kChunk;
      T* __restrict decay = work.decay.data() + n * kChunk;
      T* __restrict key = work.local_key.data() + n * kChunk;
      for (int i = 0; i < kChunk; ++i) {
        query[i] = c_n[i] * scale[i] * ExpNonPositive(a_n * sum[i]);
        decay[i] = ExpNonPositive(a_n * step[i]);
        key[i] = input[i] * b_n[i];
      }
      work.total_decay[n] = ExpNonPositive(a_n * static_cast<T>(running));
    }
  }

  // Sets all columns of the chunk's rows to Q K, and moves K on to the end of
  // the chunk while a panel of it is in the first cache.
  template <typename T>
  static LIMPID_INLINE void MultiplyLeft(Workspace<T>& work, int64_t b,
                                         int rows, T* __restrict out) {
    constexpr int kColumns = kPanel<T>;
    const int64_t width = work.op.ssm.num_positions;
    const int64_t num_states = work.num_states;
    for (int64_t j = 0; j < b; j += kColumns) {
      T* __restrict key = work.keys.data() + kPad + j;
      const bool full = j + kColumns <= width;
      for (int i = 0; i < rows; i += kRows) {
        const T* query = work.query.data() + i;
        T* __restrict tile = out + i * width + j;
        if (full && i + kRows <= rows) {
          TileProduct<kRows, kColumns>(query, kChunk, key, work.stride,
                                       num_states, tile, width);
        } else {
          alignas(64) T whole[kRows * kColumns];
          TileProduct<kRows, kColumns>(query, kChunk, key, work.stride,
                                       num_states, whole, kColumns);
          const int64_t columns = std::min<int64_t>(kColumns, width - j);
          for (int r = 0; r < std::min(kRows, rows - i); ++r) {
            std::copy_n(whole + r * kColumns, columns, tile + r * width);
          }
        }
      }
      for (int64_t n = 0; n < num_states; ++n) {
        for (int w = 0; w < kColumns; ++w) {
          key[n * work.stride + w] *= work.total_decay[n];
        }
      }
    }
    const int64_t done = std::min(RoundUp(b, kColumns), width);
    for (int i = 0; i < rows; ++i) {
      std::fill_n(out + i * width + done, width - done, T{0});
    }
  }

  // result[x] = sum over d of tap_d in[x + d], for a window.
  template <typename T>
  static LIMPID_INLINE void Convolve(const Workspace<T>& work, const T* in,
                                     T* __restrict result) {
    const int64_t taps = ConvWidth(work.op);
    for (int x = 0; x < kWindow; ++x) result[x] = work.tap[0] * in[x];
    for (int64_t d = 1; d < taps; ++d) {
      const T tap = work.tap[d];
      for (int x = 0; x < kWindow; ++x) result[x] += tap * in[x + d];
    }
  }

  // Entries of rows [begin, end) with the chunk's own keys, of which only the
  // first kColumns can be before them; decays the keys to row end - 1. Entry
  // (i, w) stands at entries[i][kPad + w].
  template <int kColumns, typename T>
  static LIMPID_INLINE void Triangle(Workspace<T>& work, const T* source,
                                     int64_t b, int begin, int end,
                                     T (*entries)[kWindow + kPad]) {
    alignas(64) T column[kColumns];
    for (int w = 0; w < kColumns; ++w) column[w] = static_cast<T>(w);
    for (int i = begin; i < end; ++i) {
      alignas(64) T sum[kColumns] = {};
      const T row = static_cast<T>(i);
      for (int64_t n = 0; n < work.num_states; ++n) {
        T* __restrict key = work.local_key.data() + n * kChunk;
        const T decay = work.decay[n * kChunk + i];
        const T c = work.c[n * work.stride + b + i];
        LIMPID_KEEP_LOOP
        for (int w = 0; w < kColumns; ++w) {
          // Key i itself and those after it are not decayed by this row.
          const T k = key[w] * (column[w] < row ? decay : T{1});
          key[w] = k;
          sum[w] += c * k;
        }
      }
      for (int w = 0; w < kColumns; ++w) {
        entries[i][kPad + w] = column[w] <= row ? sum[w] : T{0};
      }
      entries[i][kPad + i] += work.skip * source[i];
    }
  }

  // Adds what the chunk's own keys give. Leaves them decayed to its last row.
  template <typename T>
  static LIMPID_INLINE void MultiplyInside(Workspace<T>& work, const T* source,
                                           const T* row_scale, int64_t b,
                                           int rows, T* __restrict out) {
    constexpr int kHalf = kChunk / 2;
    const int64_t width = work.op.ssm.num_positions;
    // All rows first and then the convolution of all: a load that overlaps two
    // stores just made has to wait for both.
    alignas(64) T entries[kChunk][kWindow + kPad];
    for (int i = 0; i < rows; ++i) {
      for (int x = 0; x < kWindow + kPad; ++x) entries[i][x] = 0;
    }
    Triangle<kHalf>(work, source, b, 0, std::min(rows, kHalf), entries);
    Triangle<kChunk>(work, source, b, kHalf, rows, entries);

    alignas(64) T result[kWindow];
    for (int i = 0; i < rows; ++i) {
      Convolve(work, entries[i], result);
      const T scale = row_scale[i];
      T* __restrict out_row = out + i * width + b - kPad;
      if (b >= kPad && b + kChunk <= width) {
        for (int x = 0; x < kWindow; ++x) out_row[x] += scale * result[x];
      } else {
        const int64_t begin = b < kPad ? kPad - b : 0;
        for (int64_t x = begin; x <= kPad + i; ++x) {
          out_row[x] += scale * result[x];
        }
      }
    }
  }

  // Adds the chunk's keys to K, now that K stands at the chunk's end.
  template <typename T>
  static LIMPID_INLINE void AppendKeys(Workspace<T>& work, int64_t b) {
    alignas(64) T entry[kWindow + kPad] = {};
    alignas(64) T result[kWindow];
    for (int64_t n = 0; n < work.num_states; ++n) {
      std::copy_n(work.local_key.data() + n * kChunk, kChunk, entry + kPad);
      Convolve(work, entry, result);
      // Column b - kPad, which may be left of column 0, stands at b.
      T* __restrict key = work.keys.data() + n * work.stride + b;
      for (int x = 0; x < kWindow; ++x) key[x] += result[x];
    }
  }
};

}  // namespace limpid::kernels::cpu
