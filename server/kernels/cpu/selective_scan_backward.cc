// SPDX-License-Identifier: Apache-2.0
//
// Adjoint of the recurrence (spec: appendix A), for as many channels at once as
// a register holds. The states of all positions would be L N numbers per
// channel; kept are those before every kChunk-th position, from which the
// states inside a chunk are made again when the adjoint, which runs backwards,
// comes to it.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/cpu/simd_math.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {
namespace {

constexpr int64_t kChunk = 16;

int64_t NumChunks(int64_t num_positions) {
  return (num_positions + kChunk - 1) / kChunk;
}

// Scratch for the widest registers: one state per chunk, then for each position
// of a chunk the state before it and its decays.
template <typename T>
int64_t ScratchSize(const SelectiveSsm<T>& ssm) {
  return (NumChunks(ssm.num_positions) + 2 * kChunk) * ssm.state_size *
         kLanes<T, kWideBytes>;
}

template <int kWidth>
struct Backward {
  // Channels [first, first + count).
  template <typename T>
  static LIMPID_INLINE void Block(const SelectiveScanBackward<T>& op,
                                  int64_t first, int count) {
    const SelectiveSsm<T>& ssm = op.ssm;
    const int64_t size = ssm.state_size * kWidth;
    const int64_t num_chunks = NumChunks(ssm.num_positions);
    T* checkpoints = op.scratch;
    T* states = checkpoints + num_chunks * size;
    T* decays = states + kChunk * size;
    alignas(64) T a[kMaxStateSize * kWidth];
    alignas(64) T state[kMaxStateSize * kWidth];
    alignas(64) T adjoint[kMaxStateSize * kWidth];
    alignas(64) T skip[kWidth] = {};
    for (int64_t n = 0; n < ssm.state_size; ++n) {
      for (int w = 0; w < kWidth; ++w) {
        a[n * kWidth + w] =
            w < count ? ssm.a[(first + w) * ssm.state_size + n] : T{0};
      }
    }
    std::fill_n(state, size, T{0});
    std::fill_n(adjoint, size, T{0});
    if (ssm.skip != nullptr) std::copy_n(ssm.skip + first, count, skip);

    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
      std::copy_n(state, size, checkpoints + chunk * size);
      if (chunk + 1 == num_chunks) break;
      for (int64_t i = chunk * kChunk; i < (chunk + 1) * kChunk; ++i) {
        // What it notes is not needed yet: all to the same place.
        Forward(op, first, count, i, a, state, states, decays);
      }
    }
    for (int64_t chunk = num_chunks - 1; chunk >= 0; --chunk) {
      const int64_t begin = chunk * kChunk;
      const int64_t end = std::min(begin + kChunk, ssm.num_positions);
      std::copy_n(checkpoints + chunk * size, size, state);
      for (int64_t i = begin; i < end; ++i) {
        Forward(op, first, count, i, a, state, states + (i - begin) * size,
                decays + (i - begin) * size);
      }
      for (int64_t i = end - 1; i >= begin; --i) {
        Step(op, first, count, i, a, skip, states + (i - begin) * size,
             decays + (i - begin) * size, adjoint);
      }
    }
  }

  template <typename T>
  static LIMPID_INLINE void Load(const T* in, int count, T* __restrict out) {
    for (int w = 0; w < kWidth; ++w) out[w] = 0;
    for (int w = 0; w < count; ++w) out[w] = in[w];
  }

  // Moves `state` over position i; notes the state before it and the decays.
  template <typename T>
  static LIMPID_INLINE void Forward(const SelectiveScanBackward<T>& op,
                                    int64_t first, int count, int64_t i,
                                    const T* a, T* __restrict state,
                                    T* __restrict before,
                                    T* __restrict decays) {
    const SelectiveSsm<T>& ssm = op.ssm;
    alignas(64) T delta[kWidth];
    alignas(64) T input[kWidth];
    Load(ssm.delta + i * ssm.delta_stride + first, count, delta);
    Load(op.u + i * op.u_stride + first, count, input);
    for (int w = 0; w < kWidth; ++w) input[w] *= delta[w];
    const T* b = ssm.b + i * ssm.b_stride;
    for (int64_t n = 0; n < ssm.state_size; ++n) {
      const T b_n = b[n];
      LIMPID_IVDEP
      for (int w = 0; w < kWidth; ++w) {
        const int64_t at = n * kWidth + w;
        const T decay = ExpNonPositive(delta[w] * a[at]);
        const T s = state[at];
        before[at] = s;
        decays[at] = decay;
        state[at] = decay * s + input[w] * b_n;
      }
    }
  }

  // Gradients of position i. `adjoint` is that of the state after position i
  // but for what y_i adds, and becomes that of the state before it.
  template <typename T>
  static LIMPID_INLINE void Step(const SelectiveScanBackward<T>& op,
                                 int64_t first, int count, int64_t i,
                                 const T* a, const T* skip, const T* before,
                                 const T* decays, T* __restrict adjoint) {
    const SelectiveSsm<T>& ssm = op.ssm;
    alignas(64) T delta[kWidth];
    alignas(64) T u[kWidth];
    alignas(64) T dy[kWidth];
    Load(ssm.delta + i * ssm.delta_stride + first, count, delta);
    Load(op.u + i * op.u_stride + first, count, u);
    Load(op.dy + i * op.dy_stride + first, count, dy);
    const T* b = ssm.b + i * ssm.b_stride;
    const T* c = ssm.c + i * ssm.c_stride;
    alignas(64) T through_b[kWidth] = {};
    alignas(64) T through_decay[kWidth] = {};
    for (int64_t n = 0; n < ssm.state_size; ++n) {
      const T b_n = b[n];
      const T c_n = c[n];
      alignas(64) T db[kWidth];
      alignas(64) T dc[kWidth];
      LIMPID_IVDEP
      for (int w = 0; w < kWidth; ++w) {
        const int64_t at = n * kWidth + w;
        const T decayed = decays[at] * before[at];
        const T input = delta[w] * u[w];
        const T gradient = adjoint[at] + dy[w] * c_n;
        dc[w] = dy[w] * (decayed + input * b_n);
        db[w] = gradient * input;
        through_b[w] += gradient * b_n;
        through_decay[w] += gradient * a[at] * decayed;
        adjoint[at] = gradient * decays[at];
      }
      op.db[i * ssm.state_size + n] += SumLanes(db);
      op.dc[i * ssm.state_size + n] += SumLanes(dc);
    }
    T* du = op.du + i * ssm.num_channels + first;
    T* ddelta = op.ddelta + i * ssm.num_channels + first;
    for (int w = 0; w < count; ++w) {
      du[w] = delta[w] * through_b[w] + skip[w] * dy[w];
      ddelta[w] = u[w] * through_b[w] + through_decay[w];
    }
  }

  template <typename T>
  static LIMPID_INLINE T SumLanes(T (&x)[kWidth]) {
    for (int half = kWidth / 2; half > 0; half /= 2) {
      for (int w = 0; w < half; ++w) x[w] += x[w + half];
    }
    return x[0];
  }
};

struct BackwardKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const SelectiveScanBackward<T>& op) {
    constexpr int kWidth = kLanes<T, kBytes>;
    for (int64_t first = op.channel_begin; first < op.channel_end;
         first += kWidth) {
      Backward<kWidth>::Block(op, first,
                              static_cast<int>(std::min<int64_t>(
                                  kWidth, op.channel_end - first)));
    }
  }
};

}  // namespace

template <typename T>
int64_t SelectiveScanBackwardScratch(const SelectiveSsm<T>& ssm,
                                     int64_t num_channels) {
  // Blocks of channels come one after the other.
  return num_channels == 0 ? 0 : ScratchSize(ssm);
}

template <typename T>
absl::Status Run(const SelectiveScanBackward<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const FlushDenormals flush;
  DispatchSimd<BackwardKernel>(op);
  return absl::OkStatus();
}

template int64_t SelectiveScanBackwardScratch(const SelectiveSsm<float>&,
                                              int64_t);
template int64_t SelectiveScanBackwardScratch(const SelectiveSsm<double>&,
                                              int64_t);
template absl::Status Run(const SelectiveScanBackward<float>&);
template absl::Status Run(const SelectiveScanBackward<double>&);

}  // namespace limpid::kernels::cpu
