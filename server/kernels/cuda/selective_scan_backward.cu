// SPDX-License-Identifier: Apache-2.0
//
// Adjoint of the recurrence with one thread per channel and one warp per block.
// Kept are the states before every kChunk-th position; the states inside a
// chunk are made again when the adjoint comes to it. Sums over channels: each
// warp adds its 32 in a fixed order and leaves the result in the scratch
// memory, where a second kernel adds those of all warps, again in order.
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 32;
constexpr int kSumThreads = 128;
constexpr int64_t kChunk = 32;

// Sizes of the parts of the scratch memory, in their order.
struct Layout {
  int64_t num_warps;
  int64_t num_chunks;
  int64_t state;     // all warps' states: [N, 32 num_warps]
  int64_t gradient;  // one warp's sums: [L, N]
  __host__ __device__ int64_t checkpoints() const { return num_chunks * state; }
  __host__ __device__ int64_t chunk() const { return kChunk * state; }
  __host__ __device__ int64_t gradients() const { return num_warps * gradient; }
};

template <typename T>
Layout MakeLayout(const SelectiveSsm<T>& ssm, int64_t num_channels) {
  const int64_t num_warps = CeilDiv(num_channels, kThreads);
  return {num_warps, CeilDiv(ssm.num_positions, kChunk),
          ssm.state_size * num_warps * kThreads,
          ssm.num_positions * ssm.state_size};
}

// Sum over the lanes of a warp, valid in lane 0.
template <typename T>
__device__ T WarpSum(T x) {
  for (int offset = kThreads / 2; offset > 0; offset /= 2) {
    x += __shfl_down_sync(0xffffffffu, x, offset);
  }
  return x;
}

template <int kStates, typename T>
__global__ void Backward(SelectiveScanBackward<T> op, Layout layout) {
  const SelectiveSsm<T>& ssm = op.ssm;
  const int num_states = static_cast<int>(ssm.state_size);
  const int64_t slot = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t channel = op.channel_begin + slot;
  // Threads without a channel go along with zeros, for the sums.
  const bool active = channel < op.channel_end;
  // This thread's column of [.., 32 num_warps].
  const int64_t stride = layout.num_warps * kThreads;
  T* checkpoints = op.scratch + slot;
  T* states = checkpoints + layout.checkpoints();
  T* db = op.scratch + layout.checkpoints() + layout.chunk() +
          blockIdx.x * layout.gradient;
  T* dc = db + layout.gradients();

  T a[kStates];
  T state[kStates];
#pragma unroll kUnroll<kStates>
  for (int n = 0; n < kStates; ++n) {
    a[n] = active && n < num_states ? ssm.a[channel * num_states + n] : T{0};
    state[n] = 0;
  }
  const T skip = active && ssm.skip != nullptr ? ssm.skip[channel] : T{0};

  // Moves the state over position i.
  const auto forward = [&](int64_t i) {
    const T delta = active ? ssm.delta[i * ssm.delta_stride + channel] : T{0};
    const T u = active ? op.u[i * op.u_stride + channel] : T{0};
#pragma unroll kUnroll<kStates>
    for (int n = 0; n < kStates; ++n) {
      if (n < num_states) {
        state[n] = exp(delta * a[n]) * state[n] +
                   delta * u * ssm.b[i * ssm.b_stride + n];
      }
    }
  };
  const auto save = [&](T* to) {
#pragma unroll kUnroll<kStates>
    for (int n = 0; n < kStates; ++n) {
      if (n < num_states) to[n * stride] = state[n];
    }
  };

  for (int64_t i = 0; i < ssm.num_positions; ++i) {
    if (i % kChunk == 0) save(checkpoints + i / kChunk * layout.state);
    forward(i);
  }

  T adjoint[kStates];
#pragma unroll kUnroll<kStates>
  for (int n = 0; n < kStates; ++n) adjoint[n] = 0;
  for (int64_t chunk = layout.num_chunks - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * kChunk;
    const int64_t end = min(begin + kChunk, ssm.num_positions);
#pragma unroll kUnroll<kStates>
    for (int n = 0; n < kStates; ++n) {
      if (n < num_states) {
        state[n] = checkpoints[chunk * layout.state + n * stride];
      }
    }
    for (int64_t i = begin; i < end; ++i) {
      save(states + (i - begin) * layout.state);
      forward(i);
    }
    for (int64_t i = end - 1; i >= begin; --i) {
      const T delta = active ? ssm.delta[i * ssm.delta_stride + channel] : T{0};
      const T u = active ? op.u[i * op.u_stride + channel] : T{0};
      const T dy = active ? op.dy[i * op.dy_stride + channel] : T{0};
      const T* before = states + (i - begin) * layout.state;
      T through_b = 0;
      T through_decay = 0;
#pragma unroll kUnroll<kStates>
      for (int n = 0; n < kStates; ++n) {
        if (n < num_states) {
          const T b = ssm.b[i * ssm.b_stride + n];
          const T c = ssm.c[i * ssm.c_stride + n];
          const T decay = exp(delta * a[n]);
          const T decayed = decay * before[n * stride];
          const T gradient = adjoint[n] + dy * c;
          through_b += gradient * b;
          through_decay += gradient * a[n] * decayed;
          adjoint[n] = gradient * decay;
          const T db_n = WarpSum(gradient * delta * u);
          const T dc_n = WarpSum(dy * (decayed + delta * u * b));
          if (threadIdx.x == 0) {
            db[i * num_states + n] = db_n;
            dc[i * num_states + n] = dc_n;
          }
        }
      }
      if (active) {
        op.du[i * ssm.num_channels + channel] = delta * through_b + skip * dy;
        op.ddelta[i * ssm.num_channels + channel] =
            u * through_b + through_decay;
      }
    }
  }
}

template <typename T>
__global__ void AddUp(SelectiveScanBackward<T> op, Layout layout) {
  const int64_t at = int64_t{blockIdx.x} * kSumThreads + threadIdx.x;
  if (at >= layout.gradient) return;
  const T* db = op.scratch + layout.checkpoints() + layout.chunk() + at;
  const T* dc = db + layout.gradients();
  T db_sum = 0;
  T dc_sum = 0;
  for (int64_t warp = 0; warp < layout.num_warps; ++warp) {
    db_sum += db[warp * layout.gradient];
    dc_sum += dc[warp * layout.gradient];
  }
  op.db[at] += db_sum;
  op.dc[at] += dc_sum;
}

}  // namespace

template <typename T>
int64_t SelectiveScanBackwardScratch(const SelectiveSsm<T>& ssm,
                                     int64_t num_channels) {
  const Layout layout = MakeLayout(ssm, num_channels);
  return layout.checkpoints() + layout.chunk() + 2 * layout.gradients();
}

template <typename T>
absl::Status Run(const SelectiveScanBackward<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const Layout layout = MakeLayout(op.ssm, op.channel_end - op.channel_begin);
  if (layout.num_warps == 0) return absl::OkStatus();
  const int64_t sum_blocks = CeilDiv(layout.gradient, kSumThreads);
  LIMPID_RETURN_IF_ERROR(CheckGrid("SelectiveScanBackward", layout.num_warps));
  LIMPID_RETURN_IF_ERROR(CheckGrid("SelectiveScanBackward", sum_blocks));
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  LIMPID_RETURN_IF_ERROR(WithStateSize(op.ssm.state_size, [&]<int kStates>() {
    Backward<kStates, T>
        <<<static_cast<unsigned>(layout.num_warps), kThreads, 0, cuda_stream>>>(
            op, layout);
    return CheckLaunch("SelectiveScanBackward");
  }));
  AddUp<T><<<static_cast<unsigned>(sum_blocks), kSumThreads, 0, cuda_stream>>>(
      op, layout);
  return CheckLaunch("SelectiveScanBackward");
}

template int64_t SelectiveScanBackwardScratch(const SelectiveSsm<float>&,
                                              int64_t);
template int64_t SelectiveScanBackwardScratch(const SelectiveSsm<double>&,
                                              int64_t);
template absl::Status Run(const SelectiveScanBackward<float>&, void*);
template absl::Status Run(const SelectiveScanBackward<double>&, void*);

}  // namespace limpid::kernels::cuda
