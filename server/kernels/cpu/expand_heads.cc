// SPDX-License-Identifier: Apache-2.0
//
// One row of one channel after the other, with positions side by side in
// registers. The scales of the sources come with the channels side by side, so
// they are turned around for a group of channels first. The skip is on one
// entry of a row only and is added in the end, to the entries that the
// convolution brings it to.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/aligned_buffer.h"
#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {
namespace {

// Channels whose scales share cache lines.
constexpr int64_t kGroup = 16;
// Entries to the right of the last one that a convolution reads: zeros.
constexpr int64_t kPad = kMaxConvWidth;
constexpr int kPart = 4;
static_assert(kMaxConvWidth % kPart == 0);

template <typename T>
struct Workspace {
  explicit Workspace(const ExpandHeads<T>& op)
      : op(op),
        source(op.source_scale == nullptr ? 0 : kGroup * op.num_positions),
        entries(op.conv_weight == nullptr ? 0 : op.num_positions + kPad) {}

  const ExpandHeads<T>& op;
  AlignedBuffer<T> source;   // [kGroup, L]
  AlignedBuffer<T> entries;  // [L + kPad]: a row before the convolution
};

struct ExpandKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(Workspace<T>* const& work) {
    const ExpandHeads<T>& op = work->op;
    const int64_t length = op.num_positions;
    if (op.conv_weight != nullptr) {
      std::fill_n(work->entries.data() + length, kPad, T{0});
    }
    for (int64_t first = op.channel_begin; first < op.channel_end;
         first += kGroup) {
      const int64_t count = std::min(kGroup, op.channel_end - first);
      if (op.source_scale != nullptr) {
        T* source = work->source.data();
        for (int64_t j = 0; j < length; ++j) {
          const T* in = op.source_scale + j * op.source_stride + first;
          for (int64_t w = 0; w < count; ++w) source[w * length + j] = in[w];
        }
      }
      for (int64_t w = 0; w < count; ++w) {
        Channel<kBytes>(*work, first + w, work->source.data() + w * length);
      }
    }
  }

  // `source`, if there is a source_scale: of this channel, contiguous.
  template <int kBytes, typename T>
  static LIMPID_INLINE void Channel(const Workspace<T>& work, int64_t c,
                                    const T* source) {
    const ExpandHeads<T>& op = work.op;
    const int64_t length = op.num_positions;
    const int64_t num_rows = op.row_end - op.row_begin;
    const int64_t head = c / op.channels_per_head - op.head_begin;
    const int64_t taps = op.conv_weight == nullptr ? 1 : op.conv_width;
    for (int64_t i = op.row_begin; i < op.row_end; ++i) {
      const T* in = op.heads + (head * num_rows + i - op.row_begin) * length;
      T* out = op.out +
               ((c - op.channel_begin) * num_rows + i - op.row_begin) * length;
      const T scale =
          op.row_scale == nullptr ? T{1} : op.row_scale[i * op.row_stride + c];
      // tap[d] is the part that entry j + d has in entry j of the result.
      T tap[kMaxConvWidth] = {};
      for (int64_t d = 0; d < taps; ++d) {
        tap[d] = op.conv_weight == nullptr
                     ? scale
                     : scale * op.conv_weight[c * taps + taps - 1 - d];
      }
      if (op.conv_weight != nullptr) {
        T* __restrict entries = work.entries.data();
        if (op.source_scale != nullptr) {
          for (int64_t j = 0; j < length; ++j) entries[j] = in[j] * source[j];
        } else {
          std::copy_n(in, length, entries);
        }
        Convolve<4 * kLanes<T, kBytes>>(entries, tap, taps, length, out);
      } else if (op.source_scale != nullptr) {
        Scale(in, source, scale, length, out);
      } else {
        Scale(in, scale, length, out);
      }
      if (op.skip != nullptr) {
        const T skip =
            op.source_scale == nullptr ? op.skip[c] : op.skip[c] * source[i];
        for (int64_t d = 0; d < std::min(taps, i + 1); ++d) {
          out[i - d] += tap[d] * skip;
        }
      }
    }
  }

  template <typename T>
  static LIMPID_INLINE void Scale(const T* in, T scale, int64_t length,
                                  T* __restrict out) {
    for (int64_t j = 0; j < length; ++j) out[j] = in[j] * scale;
  }
  template <typename T>
  static LIMPID_INLINE void Scale(const T* in, const T* source, T scale,
                                  int64_t length, T* __restrict out) {
    for (int64_t j = 0; j < length; ++j) out[j] = in[j] * source[j] * scale;
  }

  // out[j] = sum over d of tap[d] in[j + d]. Taps come in parts of kPart, the
  // last of which zeros fill up: a sum stays in its register for a part.
  template <int kWidth, typename T>
  static LIMPID_INLINE void Convolve(const T* in, const T* tap, int64_t taps,
                                     int64_t length, T* __restrict out) {
    int64_t j = 0;
    for (; j + kWidth <= length; j += kWidth) {
      alignas(64) T sum[kWidth] = {};
      for (int64_t d = 0; d < taps; d += kPart) {
        LIMPID_KEEP_LOOP
        for (int w = 0; w < kWidth; ++w) {
          T x = sum[w];
          LIMPID_UNROLL
          for (int k = 0; k < kPart; ++k) x += tap[d + k] * in[j + d + k + w];
          sum[w] = x;
        }
      }
      for (int w = 0; w < kWidth; ++w) out[j + w] = sum[w];
    }
    for (; j < length; ++j) {
      T sum = 0;
      for (int64_t d = 0; d < taps; ++d) sum += tap[d] * in[j + d];
      out[j] = sum;
    }
  }
};

}  // namespace

template <typename T>
absl::Status Run(const ExpandHeads<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const FlushDenormals flush;
  Workspace<T> work(op);
  DispatchSimd<T, ExpandKernel>(&work);
  return absl::OkStatus();
}

template absl::Status Run(const ExpandHeads<float>&);
template absl::Status Run(const ExpandHeads<double>&);

}  // namespace limpid::kernels::cpu
