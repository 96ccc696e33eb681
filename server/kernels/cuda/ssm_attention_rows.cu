// SPDX-License-Identifier: Apache-2.0
//
// A few rows of the implicit attention, each backwards from its own position
// (spec: one row without the matrix) in segments that run side by side: the
// decays from the row to a segment's end need sums of delta only. One thread
// has a channel and a segment; neighbours are channels.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/ssm_attention.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kChannels = 16;
constexpr int kSegments = 32;
constexpr int kThreads = kChannels * kSegments;

template <int kStates, typename T>
__global__ void __launch_bounds__(kThreads) AttendRows(SsmAttention<T> op) {
  // Of delta over a segment, and without as many of its first positions as the
  // convolution looks to the right.
  __shared__ T sums[kSegments][kChannels];
  __shared__ T tails[kSegments][kChannels];
  const SelectiveSsm<T>& ssm = op.ssm;
  const int num_states = static_cast<int>(ssm.state_size);
  const int lane = threadIdx.x % kChannels, segment = threadIdx.x / kChannels;
  const int64_t channel =
      op.channel_begin + int64_t{blockIdx.x} * kChannels + lane;
  const int64_t c = min(channel, op.channel_end - 1);
  const int64_t row = op.row_begin + blockIdx.y;
  const int width =
      op.conv_weight == nullptr ? 1 : static_cast<int>(op.conv_width);
  const int right = width - 1;
  // No shorter than what a convolution looks to the right.
  const int64_t size = max(row / kSegments + 1, int64_t{right});
  const int64_t begin = min(segment * size, row + 1);
  const int64_t end = min(begin + size, row + 1);

  const auto delta_at = [&](int64_t j) {
    return ssm.delta[j * ssm.delta_stride + c];
  };
  T sum = 0, tail = 0;
  for (int64_t j = begin; j < end; ++j) {
    const T delta = delta_at(j);
    sum += delta;
    if (j >= begin + right) tail += delta;
  }
  sums[segment][lane] = sum;
  tails[segment][lane] = tail;
  __syncthreads();

  // From the row to where this thread begins: to the right of its segment.
  T gap = segment + 1 < kSegments ? tails[segment + 1][lane] : T{0};
  for (int s = segment + 2; s < kSegments; ++s) gap += sums[s][lane];
  const int64_t last = min(end - 1 + right, row);
  T a[kStates];
  T q[kStates];
#pragma unroll kUnroll < kStates>
  for (int n = 0; n < kStates; ++n) {
    a[n] = n < num_states ? ssm.a[c * num_states + n] : T{0};
    q[n] =
        n < num_states ? ssm.c[row * ssm.c_stride + n] * exp(a[n] * gap) : T{0};
  }
  T taps[kMaxConvWidth];
  T entries[kMaxConvWidth] = {};  // of the positions from j on
#pragma unroll
  for (int d = 0; d < kMaxConvWidth; ++d) {
    taps[d] = d >= width ? T{0}
              : op.conv_weight == nullptr
                  ? T{1}
                  : op.conv_weight[c * width + width - 1 - d];
  }
  const T skip = ssm.skip == nullptr ? T{0} : ssm.skip[c];
  const T row_scale =
      op.row_scale == nullptr ? T{1} : op.row_scale[row * op.row_stride + c];
  const int64_t num_rows = op.row_end - op.row_begin;
  T* const out = op.out + ((channel - op.channel_begin) * num_rows +
                           (row - op.row_begin)) *
                              ssm.num_positions;
  if (channel >= op.channel_end) return;
  for (int64_t j = last; j >= begin && begin < end; --j) {
    const T delta = delta_at(j);
    const T* const b = ssm.b + j * ssm.b_stride;
    T entry = 0;
#pragma unroll kUnroll < kStates>
    for (int n = 0; n < kStates; ++n) {
      const T b_n = n < num_states ? __ldg(b + n) : T{0};
      entry += q[n] * (delta * b_n);
      q[n] *= exp(delta * a[n]);
    }
    if (j == row) entry += skip;
    if (op.source_scale != nullptr) {
      entry *= op.source_scale[j * op.source_stride + c];
    }
#pragma unroll
    for (int d = kMaxConvWidth - 1; d > 0; --d) entries[d] = entries[d - 1];
    entries[0] = entry;
    if (j >= end) continue;
    T convolved = 0;
#pragma unroll
    for (int d = 0; d < kMaxConvWidth; ++d) {
      if (d < width) convolved += taps[d] * entries[d];
    }
    out[j] = convolved * row_scale;
  }
  for (int64_t j = row + 1 + segment; j < ssm.num_positions; j += kSegments) {
    out[j] = 0;
  }
}

}  // namespace

template <typename T>
absl::Status RunRows(const SsmAttention<T>& op, cudaStream_t stream) {
  const dim3 grid(CeilDiv(op.channel_end - op.channel_begin, kChannels),
                  op.row_end - op.row_begin);
  return WithStateSize(op.ssm.state_size, [&]<int kStates>() {
    AttendRows<kStates, T><<<grid, kThreads, 0, stream>>>(op);
    return CheckLaunch("SsmAttention");
  });
}

template absl::Status RunRows(const SsmAttention<float>&, cudaStream_t);
template absl::Status RunRows(const SsmAttention<double>&, cudaStream_t);

}  // namespace limpid::kernels::cuda
