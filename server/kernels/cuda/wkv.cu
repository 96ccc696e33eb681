// SPDX-License-Identifier: Apache-2.0
//
// Wkv in segments of positions that run side by side, three times: for the
// largest weight at the segments' borders, for the states there, and for the
// outputs. One thread has a channel and a segment; neighbours are channels.
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/sequences.h"
#include "server/kernels/wkv.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kChannels = 8;
constexpr int kSegments = 64;
constexpr int kThreads = kChannels * kSegments;

__device__ inline double Larger(double a, double b) { return b > a ? b : a; }

// The recurrence of one channel.
template <typename T>
struct State {
  double large;  // weight that everything is relative to
  T weights = 0, values = 0;

  __device__ explicit State(double large) : large(large) {}
  // One position on; returns its key and decay factors.
  __device__ auto Step(T key, T value, double decay) {
    struct Factors {
      T key, decay;
    };
    const double travelled = large + decay;
    const double next = Larger(travelled, key);
    const Factors factors = {exp(static_cast<T>(key - next)),
                             exp(static_cast<T>(travelled - next))};
    weights = factors.decay * weights + factors.key;
    values = factors.decay * values + factors.key * value;
    large = next;
    return factors;
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    Average(Wkv<T> op, unsigned channel_blocks) {
  __shared__ double larges[kSegments][kChannels];
  __shared__ T weights[kSegments][kChannels];
  __shared__ T values[kSegments][kChannels];
  __shared__ T decays[kSegments][kChannels];
  const double nothing = -static_cast<double>(__builtin_huge_valf());
  const int lane = threadIdx.x % kChannels, segment = threadIdx.x / kChannels;
  const int64_t channel = op.channel_begin +
                          int64_t{blockIdx.x % channel_blocks} * kChannels +
                          lane;
  const bool own = channel < op.channel_end;
  const int64_t c = own ? channel : op.channel_end - 1;
  const Span span =
      SpanOf(blockIdx.x / channel_blocks, op.num_positions, op.begins);
  const int64_t length = span.size();
  const int64_t begin = length * segment / kSegments;
  const int64_t end = length * (segment + 1) / kSegments;
  const double decay = op.decay[c];
  const auto place = [&](int64_t i) {
    return (span.begin + i) * op.num_channels + c;
  };

  double large = nothing;
#pragma unroll 4
  for (int64_t i = begin; i < end; ++i) {
    large = Larger(large + decay, __ldg(op.key + place(i)));
  }
  larges[segment][lane] = large;
  __syncthreads();
  // What enters the segment.
  large = nothing;
  for (int s = 0; s < segment; ++s) {
    const int64_t size = length * (s + 1) / kSegments - length * s / kSegments;
    large = Larger(large + static_cast<double>(size) * decay, larges[s][lane]);
  }

  State<T> local(large);
  T through = 1;
#pragma unroll 4
  for (int64_t i = begin; i < end; ++i) {
    through *=
        local.Step(__ldg(op.key + place(i)), __ldg(op.value + place(i)), decay)
            .decay;
  }
  weights[segment][lane] = local.weights;
  values[segment][lane] = local.values;
  decays[segment][lane] = through;
  __syncthreads();
  if (!own) return;
  State<T> state(large);
  for (int s = 0; s < segment; ++s) {
    state.weights = decays[s][lane] * state.weights + weights[s][lane];
    state.values = decays[s][lane] * state.values + values[s][lane];
  }

  const T bonus = op.bonus[c];
#pragma unroll 4
  for (int64_t i = begin; i < end; ++i) {
    const int64_t at = place(i);
    const T key = __ldg(op.key + at), value = __ldg(op.value + at);
    const T current = key + bonus;
    const double top = Larger(state.large, current);
    T query = exp(static_cast<T>(state.large - top));
    T diagonal = exp(static_cast<T>(current - top));
    const T sum = query * state.weights + diagonal;
    query /= sum;
    diagonal /= sum;
    T out = query * state.values + diagonal * value;
    if (op.gate_input != nullptr) {
      const T gate = T{1} / (T{1} + exp(-__ldg(op.gate_input + at)));
      out *= gate;
      if (op.gate != nullptr) op.gate[at] = gate;
    }
    op.out[at] = out;
    const auto factors = state.Step(key, value, decay);
    if (op.key_factor == nullptr) continue;
    op.key_factor[at] = factors.key;
    op.decay_factor[at] = factors.decay;
    op.query[at] = query;
    op.diagonal[at] = diagonal;
  }
}

}  // namespace

template <typename T>
absl::Status Run(const Wkv<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const int64_t channel_blocks =
      CeilDiv(op.channel_end - op.channel_begin, kChannels);
  const int64_t num_blocks = channel_blocks * op.num_sequences;
  if (num_blocks == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("Wkv", num_blocks));
  Average<T><<<static_cast<unsigned>(num_blocks), kThreads, 0,
               static_cast<cudaStream_t>(stream)>>>(
      op, static_cast<unsigned>(channel_blocks));
  return CheckLaunch("Wkv");
}

template absl::Status Run(const Wkv<float>&, void*);
template absl::Status Run(const Wkv<double>&, void*);

}  // namespace limpid::kernels::cuda
