// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/wkv.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/cpu/simd_math.h"
#include "server/kernels/sequences.h"

namespace limpid::kernels::cpu {
namespace {

struct WkvKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const Wkv<T>& op) {
    constexpr int kWidth = kChannelBlock<T, kBytes>;
    for (int64_t b = 0; b < op.num_sequences; ++b) {
      for (int64_t first = op.channel_begin; first < op.channel_end;
           first += kWidth) {
        Block<kWidth>(op, SpanOf(b, op.num_positions, op.begins), first,
                      static_cast<int>(
                          std::min<int64_t>(kWidth, op.channel_end - first)));
      }
    }
  }

  // Channels [first, first + count) of the sequence at `span`.
  template <int kWidth, typename T>
  static LIMPID_INLINE void Block(const Wkv<T>& op, const Span& span,
                                  int64_t first, int count) {
    alignas(64) double decay[kWidth] = {};
    alignas(64) double large[kWidth];
    alignas(64) T bonus[kWidth] = {};
    alignas(64) T weights[kWidth] = {};
    alignas(64) T values[kWidth] = {};
    for (int w = 0; w < kWidth; ++w) {
      large[w] = -std::numeric_limits<double>::infinity();
    }
    for (int w = 0; w < count; ++w) decay[w] = op.decay[first + w];
    std::copy_n(op.bonus + first, count, bonus);
    for (int64_t i = span.begin; i < span.end; ++i) {
      const int64_t at = i * op.num_channels + first;
      alignas(64) T key[kWidth], value[kWidth];
      LoadLanes<kWidth>(op.key + at, count, key);
      LoadLanes<kWidth>(op.value + at, count, value);
      // Exponents, in double precision while they are differences.
      alignas(64) T to_query[kWidth], to_diagonal[kWidth];
      alignas(64) T to_key[kWidth], to_decay[kWidth];
      for (int w = 0; w < kWidth; ++w) {
        const double current = key[w] + bonus[w];
        const double top = current > large[w] ? current : large[w];
        to_query[w] = static_cast<T>(large[w] - top);
        to_diagonal[w] = static_cast<T>(current - top);
        const double travelled = large[w] + decay[w];
        const double next = key[w] > travelled ? key[w] : travelled;
        to_key[w] = static_cast<T>(key[w] - next);
        to_decay[w] = static_cast<T>(travelled - next);
        large[w] = next;
      }
      alignas(64) T query[kWidth], diagonal[kWidth], out[kWidth];
      LIMPID_IVDEP
      for (int w = 0; w < kWidth; ++w) {
        const T q = ExpNonPositive(to_query[w]);
        const T d = ExpNonPositive(to_diagonal[w]);
        const T sum = q * weights[w] + d;
        query[w] = q / sum;
        diagonal[w] = d / sum;
        out[w] = query[w] * values[w] + diagonal[w] * value[w];
      }
      LIMPID_IVDEP
      for (int w = 0; w < kWidth; ++w) {
        key[w] = ExpNonPositive(to_key[w]);
        to_decay[w] = ExpNonPositive(to_decay[w]);
        weights[w] = to_decay[w] * weights[w] + key[w];
        values[w] = to_decay[w] * values[w] + key[w] * value[w];
      }
      if (op.gate_input != nullptr) {
        alignas(64) T gate[kWidth];
        LoadLanes<kWidth>(op.gate_input + at, count, gate);
        LIMPID_KEEP_LOOP
        for (int w = 0; w < kWidth; ++w) {
          gate[w] = Sigmoid(gate[w]);
          out[w] *= gate[w];
        }
        if (op.gate != nullptr) StoreLanes<kWidth>(gate, count, op.gate + at);
      }
      StoreLanes<kWidth>(out, count, op.out + at);
      if (op.key_factor == nullptr) continue;
      StoreLanes<kWidth>(key, count, op.key_factor + at);
      StoreLanes<kWidth>(to_decay, count, op.decay_factor + at);
      StoreLanes<kWidth>(query, count, op.query + at);
      StoreLanes<kWidth>(diagonal, count, op.diagonal + at);
    }
  }
};

}  // namespace

template <typename T>
absl::Status Run(const Wkv<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const FlushDenormals flush;
  DispatchSimd<T, WkvKernel>(op);
  return absl::OkStatus();
}

template absl::Status Run(const Wkv<float>&);
template absl::Status Run(const Wkv<double>&);

}  // namespace limpid::kernels::cpu
