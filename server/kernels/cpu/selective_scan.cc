// SPDX-License-Identifier: Apache-2.0
//
// The recurrence, position by position, for as many channels at once as a
// register holds. Its state and the block's part of `a` stay in the first
// cache, with the channel as the innermost dimension.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/cpu/simd_math.h"
#include "server/kernels/ops.h"
#include "server/kernels/sequences.h"

namespace limpid::kernels::cpu {
namespace {

struct ScanKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const SelectiveScan<T>& op) {
    constexpr int kWidth = kChannelBlock<T, kBytes>;
    for (int64_t first = op.channel_begin; first < op.channel_end;
         first += kWidth) {
      Block<kWidth>(
          op, first,
          static_cast<int>(std::min<int64_t>(kWidth, op.channel_end - first)));
    }
  }

  // Channels [first, first + count) of all sequences.
  template <int kWidth, typename T>
  static LIMPID_INLINE void Block(const SelectiveScan<T>& op, int64_t first,
                                  int count) {
    const SelectiveSsm<T>& ssm = op.ssm;
    const int64_t num_states = ssm.state_size;
    alignas(64) T a[kMaxStateSize * kWidth];
    alignas(64) T state[kMaxStateSize * kWidth];
    alignas(64) T skip[kWidth] = {};
    for (int64_t n = 0; n < num_states; ++n) {
      for (int w = 0; w < kWidth; ++w) {
        a[n * kWidth + w] =
            w < count ? ssm.a[(first + w) * num_states + n] : T{0};
      }
    }
    if (ssm.skip != nullptr) std::copy_n(ssm.skip + first, count, skip);
    for (int64_t b = 0; b < op.num_sequences; ++b) {
      std::fill_n(state, num_states * kWidth, T{0});
      Sequence<kWidth>(op, first, count,
                       SpanOf(b, ssm.num_positions, op.begins), a, skip, state);
    }
  }

  // The sequence at `span` of everything.
  template <int kWidth, typename T>
  static LIMPID_INLINE void Sequence(const SelectiveScan<T>& op, int64_t first,
                                     int count, const Span& span, const T* a,
                                     const T* skip, T* __restrict state) {
    const SelectiveSsm<T>& ssm = op.ssm;
    for (int64_t at = span.begin; at < span.end; ++at) {
      alignas(64) T delta[kWidth];
      alignas(64) T u[kWidth];
      LoadLanes<kWidth>(ssm.delta + at * ssm.delta_stride + first, count,
                        delta);
      LoadLanes<kWidth>(op.u + at * op.u_stride + first, count, u);
      const T* b = ssm.b + at * ssm.b_stride;
      const T* c = ssm.c + at * ssm.c_stride;
      alignas(64) T input[kWidth];
      alignas(64) T y[kWidth];
      LIMPID_KEEP_LOOP
      for (int w = 0; w < kWidth; ++w) {
        input[w] = delta[w] * u[w];
        y[w] = skip[w] * u[w];
      }
      for (int64_t n = 0; n < ssm.state_size; ++n) {
        const T b_n = b[n];
        const T c_n = c[n];
        LIMPID_IVDEP
        for (int w = 0; w < kWidth; ++w) {
          const T decay = ExpNonPositive(delta[w] * a[n * kWidth + w]);
          const T s = decay * state[n * kWidth + w] + input[w] * b_n;
          state[n * kWidth + w] = s;
          y[w] += c_n * s;
        }
      }
      Store<kWidth>(op, y, first, count,
                    op.reversed ? span.begin + span.end - 1 - at : at);
    }
  }

  // What follows the recurrence, at position `at` of y.
  template <int kWidth, typename T>
  static LIMPID_INLINE void Store(const SelectiveScan<T>& op, T* y,
                                  int64_t first, int count, int64_t at) {
    const int64_t place = at * op.y_stride + first;
    if (op.added != nullptr) {
      for (int w = 0; w < count; ++w) y[w] += op.added[place + w];
    }
    LIMPID_KEEP_LOOP
    for (int w = 0; w < kWidth; ++w) y[w] *= op.scale;
    if (op.gate_input != nullptr) {
      alignas(64) T gate[kWidth];
      LoadLanes<kWidth>(op.gate_input + at * op.gate_input_stride + first,
                        count, gate);
      LIMPID_KEEP_LOOP
      for (int w = 0; w < kWidth; ++w) gate[w] *= Sigmoid(gate[w]);
      LIMPID_KEEP_LOOP
      for (int w = 0; w < kWidth; ++w) y[w] *= gate[w];
      if (op.gate != nullptr) {
        StoreLanes<kWidth>(gate, count,
                           op.gate + at * op.ssm.num_channels + first);
      }
    }
    StoreLanes<kWidth>(y, count, op.y + place);
  }
};

}  // namespace

template <typename T>
absl::Status Run(const SelectiveScan<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const FlushDenormals flush;
  DispatchSimd<T, ScanKernel>(op);
  return absl::OkStatus();
}

template absl::Status Run(const SelectiveScan<float>&);
template absl::Status Run(const SelectiveScan<double>&);

}  // namespace limpid::kernels::cpu
