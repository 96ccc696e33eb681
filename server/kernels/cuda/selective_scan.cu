// SPDX-License-Identifier: Apache-2.0
//
// The recurrence in segments of positions that run side by side: each first
// from a state of zero, then, once the states at the segments' borders are
// known, from there. One thread has a channel and a segment, its state in
// registers; neighbours are channels.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kChannels = 16;
// States at the segments' borders, in shared memory: bytes.
constexpr int kBorderBytes = 32 * 1024;

template <int kStates, typename T>
inline constexpr int kSegments = std::clamp<int>(
    kBorderBytes / (kChannels * kStates * static_cast<int>(sizeof(T))), 1, 32);

template <int kStates, typename T>
__global__ void __launch_bounds__(kChannels* kSegments<kStates, T>)
    Scan(SelectiveScan<T> op) {
  constexpr int kParts = kSegments<kStates, T>;
  __shared__ T borders[kParts][kStates][kChannels];
  __shared__ T sums[kParts][kChannels];  // of delta
  const SelectiveSsm<T>& ssm = op.ssm;
  const int num_states = static_cast<int>(ssm.state_size);
  const int lane = threadIdx.x % kChannels, segment = threadIdx.x / kChannels;
  const int64_t channel =
      op.channel_begin + int64_t{blockIdx.x} * kChannels + lane;
  // Channels past the last one repeat it and write nothing.
  const int64_t c = min(channel, op.channel_end - 1);
  const int64_t begin = ssm.num_positions * segment / kParts;
  const int64_t end = ssm.num_positions * (segment + 1) / kParts;
  T a[kStates];
  T state[kStates];
#pragma unroll kUnroll < kStates>
  for (int n = 0; n < kStates; ++n) {
    a[n] = n < num_states ? ssm.a[c * num_states + n] : T{0};
    state[n] = 0;
  }
  const T skip = ssm.skip != nullptr ? ssm.skip[c] : T{0};

  // One position; returns what the state gives there.
  const auto step = [&](int64_t i, T delta, T u, bool wants_output) {
    const T* const b = ssm.b + i * ssm.b_stride;
    const T* const c_row = ssm.c + i * ssm.c_stride;
    const T input = delta * u;
    T y = skip * u;
#pragma unroll kUnroll < kStates>
    for (int n = 0; n < kStates; ++n) {
      const T b_n = n < num_states ? __ldg(b + n) : T{0};
      state[n] = exp(delta * a[n]) * state[n] + input * b_n;
      if (wants_output) {
        y += (n < num_states ? __ldg(c_row + n) : T{0}) * state[n];
      }
    }
    return y;
  };

  if (kParts > 1) {
    T sum = 0;
    for (int64_t i = begin; i < end; ++i) {
      const T delta = ssm.delta[i * ssm.delta_stride + c];
      step(i, delta, op.u[i * op.u_stride + c], false);
      sum += delta;
    }
    sums[segment][lane] = sum;
#pragma unroll kUnroll < kStates>
    for (int n = 0; n < kStates; ++n) borders[segment][n][lane] = state[n];
    __syncthreads();
    // What enters each segment, in place of what leaves it.
    for (int at = threadIdx.x; at < kStates * kChannels; at += blockDim.x) {
      const int n = at / kChannels, x = at % kChannels;
      const int64_t own =
          min(op.channel_begin + int64_t{blockIdx.x} * kChannels + x,
              op.channel_end - 1);
      const T rate = n < num_states ? ssm.a[own * num_states + n] : T{0};
      T carried = 0;
      for (int s = 0; s < kParts; ++s) {
        const T leaves = borders[s][n][x];
        borders[s][n][x] = carried;
        carried = exp(rate * sums[s][x]) * carried + leaves;
      }
    }
    __syncthreads();
#pragma unroll kUnroll < kStates>
    for (int n = 0; n < kStates; ++n) state[n] = borders[segment][n][lane];
  }
  for (int64_t i = begin; i < end; ++i) {
    const T y = step(i, ssm.delta[i * ssm.delta_stride + c],
                     op.u[i * op.u_stride + c], true);
    if (channel < op.channel_end) op.y[i * op.y_stride + channel] = y;
  }
}

}  // namespace

template <typename T>
absl::Status Run(const SelectiveScan<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const int64_t num_blocks =
      CeilDiv(op.channel_end - op.channel_begin, kChannels);
  if (num_blocks == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("SelectiveScan", num_blocks));
  return WithStateSize(op.ssm.state_size, [&]<int kStates>() {
    Scan<kStates, T>
        <<<static_cast<unsigned>(num_blocks), kChannels * kSegments<kStates, T>,
           0, static_cast<cudaStream_t>(stream)>>>(op);
    return CheckLaunch("SelectiveScan");
  });
}

template absl::Status Run(const SelectiveScan<float>&, void*);
template absl::Status Run(const SelectiveScan<double>&, void*);

}  // namespace limpid::kernels::cuda
