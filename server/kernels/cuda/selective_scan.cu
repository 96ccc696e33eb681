// SPDX-License-Identifier: Apache-2.0
//
// The recurrence with one thread per channel, position by position: its state
// is in registers, and b and c come in tiles through shared memory.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

// Few threads per block, since there are few channels: they should be spread
// over all multiprocessors.
constexpr int kThreads = 32;
// Numbers of b, and of c, in shared memory.
constexpr int kTileSize = 1024;

template <int kStates, typename T>
__global__ void Scan(SelectiveScan<T> op) {
  constexpr int kTile = kTileSize / kStates;  // positions
  __shared__ T b[kTileSize];
  __shared__ T c[kTileSize];
  const SelectiveSsm<T>& ssm = op.ssm;
  const int num_states = static_cast<int>(ssm.state_size);
  const int64_t channel =
      op.channel_begin + int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const bool active = channel < op.channel_end;
  T a[kStates];
  T state[kStates];
#pragma unroll kUnroll<kStates>
  for (int n = 0; n < kStates; ++n) {
    a[n] = active && n < num_states ? ssm.a[channel * num_states + n] : T{0};
    state[n] = 0;
  }
  const T skip = active && ssm.skip != nullptr ? ssm.skip[channel] : T{0};

  for (int64_t begin = 0; begin < ssm.num_positions; begin += kTile) {
    const int size = static_cast<int>(
        min(static_cast<int64_t>(kTile), ssm.num_positions - begin));
    __syncthreads();
    for (int at = threadIdx.x; at < size * kStates; at += kThreads) {
      const int64_t i = begin + at / kStates;
      const int n = at % kStates;
      b[at] = n < num_states ? ssm.b[i * ssm.b_stride + n] : T{0};
      c[at] = n < num_states ? ssm.c[i * ssm.c_stride + n] : T{0};
    }
    __syncthreads();
    if (!active) continue;
    for (int t = 0; t < size; ++t) {
      const int64_t i = begin + t;
      const T delta = ssm.delta[i * ssm.delta_stride + channel];
      const T u = op.u[i * op.u_stride + channel];
      const T input = delta * u;
      T y = skip * u;
#pragma unroll kUnroll<kStates>
      for (int n = 0; n < kStates; ++n) {
        state[n] = exp(delta * a[n]) * state[n] + input * b[t * kStates + n];
        y += c[t * kStates + n] * state[n];
      }
      op.y[i * op.y_stride + channel] = y;
    }
  }
}

}  // namespace

template <typename T>
absl::Status Run(const SelectiveScan<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const int64_t num_blocks =
      CeilDiv(op.channel_end - op.channel_begin, kThreads);
  if (num_blocks == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("SelectiveScan", num_blocks));
  return WithStateSize(op.ssm.state_size, [&]<int kStates>() {
    Scan<kStates, T><<<static_cast<unsigned>(num_blocks), kThreads, 0,
                       static_cast<cudaStream_t>(stream)>>>(op);
    return CheckLaunch("SelectiveScan");
  });
}

template absl::Status Run(const SelectiveScan<float>&, void*);
template absl::Status Run(const SelectiveScan<double>&, void*);

}  // namespace limpid::kernels::cuda
