// SPDX-License-Identifier: Apache-2.0
//
// The recurrence in segments of positions that run side by side: each first
// from a state of zero, then, once the states at the segments' borders are
// known, from there. One thread has a channel and a segment, its state in
// registers; neighbours are channels. For sizes that no other kernel takes.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/row_of_states.h"
#include "server/kernels/cuda/selective_scan.h"
#include "server/kernels/ops.h"
#include "server/kernels/sequences.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kChannels = 8;
// States at the segments' borders, in shared memory: bytes.
constexpr int kBorderBytes = 32 * 1024;

// As many as there is room for.
template <int kStates, typename T>
inline constexpr int kSegments = std::clamp<int>(
    kBorderBytes / (kChannels * kStates * static_cast<int>(sizeof(T))), 1, 64);

template <int kStates, typename T>
__global__ void __launch_bounds__(kChannels* kSegments<kStates, T>)
    Scan(SelectiveScan<T> op, unsigned channel_blocks) {
  constexpr int kParts = kSegments<kStates, T>;
  __shared__ T borders[kParts][kStates][kChannels];
  __shared__ T sums[kParts][kChannels];  // of delta
  const SelectiveSsm<T>& ssm = op.ssm;
  const int num_states = static_cast<int>(ssm.state_size);
  const int lane = threadIdx.x % kChannels, segment = threadIdx.x / kChannels;
  const int64_t first_channel =
      op.channel_begin + int64_t{blockIdx.x % channel_blocks} * kChannels;
  const Span span =
      SpanOf(blockIdx.x / channel_blocks, ssm.num_positions, op.begins);
  // Channels past the last one repeat it and write nothing.
  const int64_t channel = first_channel + lane;
  const int64_t c = min(channel, op.channel_end - 1);
  const int64_t begin = span.begin + span.size() * segment / kParts;
  const int64_t end = span.begin + span.size() * (segment + 1) / kParts;
  T a[kStates];
  T state[kStates];
#pragma unroll kUnroll < kStates>
  for (int n = 0; n < kStates; ++n) {
    a[n] = n < num_states ? Rate(ssm.a[c * num_states + n]) : T{0};
    state[n] = 0;
  }
  const T skip = ssm.skip != nullptr ? ssm.skip[c] : T{0};
  const auto delta_at = [&](int64_t i) {
    return __ldg(ssm.delta + i * ssm.delta_stride + c);
  };
  const auto u_at = [&](int64_t i) {
    return __ldg(op.u + i * op.u_stride + c);
  };

  if (kParts > 1) {
    T sum = 0;
    for (int64_t i = begin; i < end; ++i) {
      const T delta = delta_at(i), input = delta * u_at(i);
      const RowOfStates<kStates, false, T> b(ssm.b + i * ssm.b_stride,
                                             num_states);
#pragma unroll kUnroll < kStates>
      for (int n = 0; n < kStates; ++n) {
        state[n] = Decay(delta * a[n]) * state[n] + input * b[n];
      }
      sum += delta;
    }
    sums[segment][lane] = sum;
#pragma unroll kUnroll < kStates>
    for (int n = 0; n < kStates; ++n) borders[segment][n][lane] = state[n];
    __syncthreads();
    // What enters each segment, in place of what leaves it.
    for (int at = threadIdx.x; at < kStates * kChannels; at += blockDim.x) {
      const int n = at / kChannels, x = at % kChannels;
      const int64_t own = min(first_channel + x, op.channel_end - 1);
      const T rate = n < num_states ? Rate(ssm.a[own * num_states + n]) : T{0};
      T carried = 0;
      for (int s = 0; s < kParts; ++s) {
        const T leaves = borders[s][n][x];
        borders[s][n][x] = carried;
        carried = Decay(rate * sums[s][x]) * carried + leaves;
      }
    }
    __syncthreads();
#pragma unroll kUnroll < kStates>
    for (int n = 0; n < kStates; ++n) state[n] = borders[segment][n][lane];
  }
  if (channel >= op.channel_end) return;
  for (int64_t i = begin; i < end; ++i) {
    const T delta = delta_at(i), u = u_at(i), input = delta * u;
    const RowOfStates<kStates, false, T> b(ssm.b + i * ssm.b_stride,
                                           num_states);
    const RowOfStates<kStates, false, T> c_row(ssm.c + i * ssm.c_stride,
                                               num_states);
    T y = skip * u;
#pragma unroll kUnroll < kStates>
    for (int n = 0; n < kStates; ++n) {
      state[n] = Decay(delta * a[n]) * state[n] + input * b[n];
      y += c_row[n] * state[n];
    }
    const int64_t at = op.reversed ? span.begin + span.end - 1 - i : i;
    if (op.added != nullptr) y += op.added[at * op.y_stride + c];
    y *= op.scale;
    if (op.gate_input != nullptr) {
      const T gate = Silu(__ldg(op.gate_input + at * op.gate_input_stride + c));
      y *= gate;
      if (op.gate != nullptr) op.gate[at * ssm.num_channels + c] = gate;
    }
    op.y[at * op.y_stride + c] = y;
  }
}

template <int kStates, typename T>
absl::Status Launch(const SelectiveScan<T>& op, cudaStream_t stream) {
  const int64_t channel_blocks =
      CeilDiv(op.channel_end - op.channel_begin, kChannels);
  const int64_t num_blocks = channel_blocks * op.num_sequences;
  if (num_blocks == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("SelectiveScan", num_blocks));
  Scan<kStates, T>
      <<<static_cast<unsigned>(num_blocks), kChannels * kSegments<kStates, T>,
         0, stream>>>(op, static_cast<unsigned>(channel_blocks));
  return CheckLaunch("SelectiveScan");
}

}  // namespace

template <typename T>
absl::Status Run(const SelectiveScan<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if constexpr (sizeof(T) == 4) {
    if (CanScanQuads(op)) return ScanInQuads(op, cuda_stream);
  }
  return WithStateSize(op.ssm.state_size, [&]<int kStates>() {
    return Launch<kStates, T>(op, cuda_stream);
  });
}

template absl::Status Run(const SelectiveScan<float>&, void*);
template absl::Status Run(const SelectiveScan<double>&, void*);

}  // namespace limpid::kernels::cuda
