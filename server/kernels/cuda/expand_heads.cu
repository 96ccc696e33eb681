// SPDX-License-Identifier: Apache-2.0
//
// A block has one channel, a tile of positions, one per thread, and a tile of
// rows. The scales of the sources, which are far apart in memory, are read once
// for all of these rows.
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 32;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    Expand(ExpandHeads<T> op, int64_t row_tiles, int64_t column_tiles) {
  // Also of the positions to the right that the convolution reads.
  __shared__ T source[kThreads + kMaxConvWidth - 1];
  __shared__ T taps[kMaxConvWidth];
  const int64_t length = op.num_positions;
  const int64_t num_rows = op.row_end - op.row_begin;
  const int64_t c = op.channel_begin + blockIdx.x / (row_tiles * column_tiles);
  const int64_t tile = blockIdx.x % (row_tiles * column_tiles);
  const int64_t first_row = op.row_begin + tile / column_tiles * kRows;
  const int64_t last_row = min(first_row + kRows, op.row_end) - 1;
  const int64_t first = tile % column_tiles * kThreads;
  const int width =
      op.conv_weight == nullptr ? 1 : static_cast<int>(op.conv_width);

  for (int x = threadIdx.x; x < kThreads + width - 1; x += kThreads) {
    const int64_t j = first + x;
    source[x] = op.source_scale == nullptr || j >= length
                    ? T{1}
                    : op.source_scale[j * op.source_stride + c];
  }
  if (threadIdx.x < width) {
    taps[threadIdx.x] =
        op.conv_weight == nullptr
            ? T{1}
            : op.conv_weight[c * width + width - 1 - threadIdx.x];
  }
  __syncthreads();
  const int64_t j = first + threadIdx.x;
  if (j >= length) return;

  const T skip = op.skip == nullptr ? T{0} : op.skip[c];
  const int64_t head = c / op.channels_per_head - op.head_begin;
  for (int64_t i = first_row; i <= last_row; ++i) {
    const T* in = op.heads + (head * num_rows + i - op.row_begin) * length + j;
    T sum = 0;
    for (int d = 0; d < width; ++d) {
      if (j + d < length) {
        T entry = __ldg(in + d);
        if (j + d == i) entry += skip;
        sum += taps[d] * source[threadIdx.x + d] * entry;
      }
    }
    if (op.row_scale != nullptr) sum *= op.row_scale[i * op.row_stride + c];
    op.out[((c - op.channel_begin) * num_rows + i - op.row_begin) * length +
           j] = sum;
  }
}

}  // namespace

template <typename T>
absl::Status Run(const ExpandHeads<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const int64_t row_tiles = CeilDiv(op.row_end - op.row_begin, kRows);
  const int64_t column_tiles = CeilDiv(op.num_positions, kThreads);
  const int64_t num_blocks =
      (op.channel_end - op.channel_begin) * row_tiles * column_tiles;
  if (num_blocks == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("ExpandHeads", num_blocks));
  Expand<T><<<static_cast<unsigned>(num_blocks), kThreads, 0,
              static_cast<cudaStream_t>(stream)>>>(op, row_tiles, column_tiles);
  return CheckLaunch("ExpandHeads");
}

template absl::Status Run(const ExpandHeads<float>&, void*);
template absl::Status Run(const ExpandHeads<double>&, void*);

}  // namespace limpid::kernels::cuda
