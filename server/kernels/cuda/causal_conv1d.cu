// SPDX-License-Identifier: Apache-2.0
//
// One thread has a channel and kRun positions one after the other, be they of
// one sequence or of several, whose inputs pass through registers; neighbours
// are channels.
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"
#include "server/kernels/sequences.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRun = 8;

// The sequence that a position of all is in.
template <typename T>
__device__ int64_t SequenceAt(const CausalConv1d<T>& op, int64_t position) {
  if (op.begins == nullptr) return position / op.num_positions;
  int64_t sequence = 0, end = op.num_sequences;
  while (end - sequence > 1) {
    const int64_t middle = (sequence + end) / 2;
    (op.begins[middle] <= position ? sequence : end) = middle;
  }
  return sequence;
}

// kWidth is the op's width or more; taps that are not there are zeros.
template <int kWidth, typename T>
__global__ void __launch_bounds__(kThreads)
    Convolve(CausalConv1d<T> op, unsigned channel_blocks, int64_t total) {
  const int64_t c =
      int64_t{blockIdx.x % channel_blocks} * kThreads + threadIdx.x;
  if (c >= op.num_channels) return;
  const int64_t begin = int64_t{blockIdx.x / channel_blocks} * kRun;
  int64_t sequence = SequenceAt(op, begin);
  Span span = SpanOf(sequence, op.num_positions, op.begins);
  const int width = static_cast<int>(op.width);
  T taps[kWidth];
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const int tap = k - (kWidth - width);
    taps[k] = tap < 0 ? T{0} : __ldg(op.weight + c * width + tap);
  }
  const T bias = op.bias == nullptr ? T{0} : op.bias[c];
  const auto input = [&](int64_t j) {
    if (j < span.begin) return T{0};
    const int64_t at = op.reversed ? span.begin + span.end - 1 - j : j;
    return __ldg(op.x + at * op.x_stride + c);
  };
  // The last kWidth inputs, the newest last.
  T window[kWidth];
#pragma unroll
  for (int k = 1; k < kWidth; ++k) window[k] = input(begin - kWidth + k);
#pragma unroll
  for (int r = 0; r < kRun; ++r) {
    const int64_t i = begin + r;
    if (i >= total) break;
    if (i == span.end) {  // where the next one begins
      span = SpanOf(++sequence, op.num_positions, op.begins);
#pragma unroll
      for (int k = 1; k < kWidth; ++k) window[k] = 0;
    }
#pragma unroll
    for (int k = 0; k < kWidth - 1; ++k) window[k] = window[k + 1];
    window[kWidth - 1] = input(i);
    T sum = bias;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum += taps[k] * window[k];
    const int64_t at = i * op.out_stride + c;
    if (op.out != nullptr) op.out[at] = sum;
    const T ratio = T{1} / (T{1} + exp(-sum));
    if (op.ratio != nullptr) op.ratio[at] = ratio;
    if (op.activated != nullptr) op.activated[at] = ratio * sum;
  }
}

}  // namespace

template <typename T>
absl::Status Run(const CausalConv1d<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const int64_t channel_blocks = CeilDiv(op.num_channels, kThreads);
  const int64_t total = op.begins == nullptr
                            ? op.num_positions * op.num_sequences
                            : op.num_positions;
  const int64_t num_blocks = channel_blocks * CeilDiv(total, kRun);
  LIMPID_RETURN_IF_ERROR(CheckGrid("CausalConv1d", num_blocks));
  const auto kernel =
      op.width <= 4 ? Convolve<4, T> : Convolve<kMaxConvWidth, T>;
  kernel<<<static_cast<unsigned>(num_blocks), kThreads, 0,
           static_cast<cudaStream_t>(stream)>>>(
      op, static_cast<unsigned>(channel_blocks), total);
  return CheckLaunch("CausalConv1d");
}

template absl::Status Run(const CausalConv1d<float>&, void*);
template absl::Status Run(const CausalConv1d<double>&, void*);

}  // namespace limpid::kernels::cuda
