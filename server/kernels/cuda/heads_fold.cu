// SPDX-License-Identifier: Apache-2.0
//
// Channels share the matrix of their head: a thread has one column and a few
// rows of it in registers while it goes through them. What belongs to a
// position and a channel lies far apart in memory and is brought to shared
// memory, some channels ahead. Products are summed over the columns of a
// block, and over blocks of columns by a second kernel, both in a fixed order.
#include <cuda_pipeline_primitives.h>

#include <cstdint>

#include "server/kernels/cuda/async_copy.h"
#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

using Op = HeadsFold<float>;

constexpr int kColumns = Op::kBlockColumns;  // one per thread
constexpr int kRows = Op::kBlockRows;
constexpr int kWarps = kColumns / 32;
constexpr int kChannels = 16;  // staged at a time
constexpr int kMaxTaps = 4;
constexpr int kJoinThreads = 128;

// Blocks of columns that have entries in the rows before `end`.
__host__ __device__ int64_t ColumnBlocks(int64_t end) {
  return (end + kColumns - 1) / kColumns;
}

// The sums over the lanes of a warp of a number per row: of the row that
// SummedRow names, in each lane.
__device__ float SumRows(float (&x)[kRows]) {
  const int lane = threadIdx.x % 32;
  int mask = 16;
#pragma unroll
  for (int count = kRows / 2; count > 0; count /= 2, mask /= 2) {
    const bool upper = (lane & mask) != 0;
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const float sent = upper ? x[k] : x[k + count];
      const float kept = upper ? x[k + count] : x[k];
      x[k] = kept + __shfl_xor_sync(0xffffffffu, sent, mask);
    }
  }
  float sum = x[0];
#pragma unroll
  for (; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
  return sum;
}
__device__ int SummedRow() { return threadIdx.x % 32 / (32 / kRows); }

// What a block needs of some channels of a head.
template <int kTaps>
struct Staged {
  // Of the positions to the right that the convolution reads, too. An odd
  // number of floats in a row: neighbouring positions are in different banks.
  float source[kColumns + kTaps - 1][kChannels + 1];
  float value[kColumns][kChannels + 1];
  alignas(16) float row_scale[kChannels][kRows];
  alignas(16) float taps[kChannels][kTaps];
  float skip[kChannels];
  float weight[kChannels];
};

template <ChannelFold kFold, bool kProducts, int kTaps>
__global__ void __launch_bounds__(kColumns, 4)
    Fold(Op op, int64_t column_blocks) {
  // One is read while the other is filled.
  __shared__ Staged<kTaps> staged[2];
  __shared__ float warp_products[kWarps][kRows][kChannels];
  const ExpandHeads<float>& e = op.expand;
  const int64_t length = e.num_positions;
  const int64_t num_rows = e.row_end - e.row_begin;
  const int64_t first_row = e.row_begin + blockIdx.x / column_blocks * kRows;
  const int64_t first = blockIdx.x % column_blocks * kColumns;
  const int64_t j = first + threadIdx.x;
  const int rows = static_cast<int>(min(int64_t{kRows}, e.row_end - first_row));
  const auto finish = [&](const float (&sums)[kRows]) {
    if (j >= length) return;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r < rows) {
        float& out = op.accumulator[(first_row - e.row_begin + r) * length + j];
        out = Joined<kFold>(out, sums[r]);
      }
    }
  };
  if (first >= first_row + rows) {  // above the diagonal, where all is zero
    const float zeros[kRows] = {};
    return finish(zeros);
  }

  const int width =
      e.conv_weight == nullptr ? 1 : static_cast<int>(e.conv_width);
  // Parts that are not there, once for all channels.
  for (int at = threadIdx.x; at < 2 * kChannels; at += kColumns) {
    Staged<kTaps>& buffer = staged[at % 2];
    const int c = at / 2;
    for (int x = 0; e.source_scale == nullptr && x < kColumns + kTaps - 1;
         ++x) {
      buffer.source[x][c] = first + x < length ? 1.0f : 0.0f;
    }
    for (int r = 0; e.row_scale == nullptr && r < kRows; ++r) {
      buffer.row_scale[c][r] = 1;
    }
    for (int d = 0; d < kTaps; ++d) buffer.taps[c][d] = d < width ? 1 : 0;
    buffer.skip[c] = 0;
    buffer.weight[c] = 1;
  }
  // Begins to bring what belongs to `count` channels from c0 on.
  const int staged_channel = threadIdx.x % kChannels;
  const auto stage = [&](int64_t c0, int count, Staged<kTaps>& buffer) {
    constexpr int kStep = kColumns / kChannels;
    const int64_t c = c0 + staged_channel;
    const int x0 = threadIdx.x / kChannels;
    if (staged_channel < count) {
      if (e.source_scale != nullptr) {
        for (int x = x0; x < kColumns + kTaps - 1; x += kStep) {
          const bool exists = first + x < length;
          CopyWordAsync(
              &buffer.source[x][staged_channel],
              e.source_scale + (exists ? first + x : 0) * e.source_stride + c,
              exists);
        }
      }
      for (int x = x0; kProducts && x < kColumns; x += kStep) {
        const bool exists = first + x < length;
        CopyWordAsync(&buffer.value[x][staged_channel],
                      op.value + (exists ? first + x : 0) * op.value_stride + c,
                      exists);
      }
      if (e.row_scale != nullptr && x0 < kRows) {
        const bool exists = x0 < rows;
        CopyWordAsync(
            &buffer.row_scale[staged_channel][x0],
            e.row_scale + (first_row + (exists ? x0 : 0)) * e.row_stride + c,
            exists);
      }
      if (e.conv_weight != nullptr && x0 < width) {
        CopyWordAsync(&buffer.taps[staged_channel][x0],
                      e.conv_weight + c * width + width - 1 - x0, true);
      }
      if (x0 == 0 && e.skip != nullptr) {
        CopyWordAsync(&buffer.skip[staged_channel], e.skip + c, true);
      }
      if (x0 == 1 && kFold == ChannelFold::kWeightedSumAbs) {
        CopyWordAsync(&buffer.weight[staged_channel], op.weight + c, true);
      }
    }
    __pipeline_commit();
  };
  const int64_t per_head = e.channels_per_head;
  // Of the staged channels from c0 on, which are of one head.
  const auto count_from = [&](int64_t c0) {
    const int64_t of_head = (c0 / per_head + 1) * per_head;
    return static_cast<int>(
        min(int64_t{kChannels}, min(of_head, e.channel_end) - c0));
  };
  // What was set above comes before what is copied over it.
  __syncthreads();
  int count = count_from(0);
  stage(0, count, staged[0]);

  float sums[kRows], of_head[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) sums[r] = EmptyFold<kFold>();
  float head[kRows][kTaps] = {};
  // Whether the skip connection meets the thread's column.
  const bool at_skip = e.skip != nullptr && j < first_row + kRows &&
                       j + kTaps > first_row;
  int current = 0;
  for (int64_t c0 = 0; c0 < e.channel_end; current ^= 1) {
    const int64_t next = c0 + count;
    const int next_count = next < e.channel_end ? count_from(next) : 0;
    if (next_count > 0) stage(next, next_count, staged[current ^ 1]);
    if (c0 % per_head == 0) {
      const float* const entries =
          e.heads +
          (c0 / per_head * num_rows + first_row - e.row_begin) * length + j;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int d = 0; d < kTaps; ++d) {
          head[r][d] = r < rows && d < width && j + d < length
                           ? __ldg(entries + r * length + d)
                           : 0.0f;
        }
        // Of this head alone, lest a sum of many terms lose digits.
        of_head[r] = EmptyFold<kFold>();
      }
    }
    __pipeline_wait_prior(next_count > 0 ? 1 : 0);
    __syncthreads();
    const Staged<kTaps>& buffer = staged[current];
#pragma unroll 2
    for (int c = 0; c < count; ++c) {
      float source[kTaps];
#pragma unroll
      for (int d = 0; d < kTaps; ++d) {
        source[d] = buffer.taps[c][d] * buffer.source[threadIdx.x + d][c];
      }
      const float value = kProducts ? buffer.value[threadIdx.x][c] : 0.0f;
      float products[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float entry = 0;
#pragma unroll
        for (int d = 0; d < kTaps; ++d) entry += source[d] * head[r][d];
        if (at_skip) {
#pragma unroll
          for (int d = 0; d < kTaps; ++d) {
            if (j + d == first_row + r) entry += source[d] * buffer.skip[c];
          }
        }
        entry *= buffer.row_scale[c][r];
        of_head[r] = Folded<kFold>(of_head[r], entry, buffer.weight[c]);
        products[r] = entry * value;
      }
      if (kProducts) {
        const float sum = SumRows(products);
        if (threadIdx.x % (32 / kRows) == 0) {
          warp_products[threadIdx.x / 32][SummedRow()][c] = sum;
        }
      }
    }
    __syncthreads();
    const int r = threadIdx.x / kChannels;
    if (kProducts && r < rows && staged_channel < count) {
      float sum = 0;
      for (int w = 0; w < kWarps; ++w) {
        sum += warp_products[w][r][staged_channel];
      }
      float* const parts = static_cast<float*>(op.scratch) +
                           first / kColumns * num_rows * e.channel_end;
      parts[(first_row - e.row_begin + r) * e.channel_end + c0 +
            staged_channel] = sum;
    }
    if (next % per_head == 0 || next_count == 0) {
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        sums[row] = Joined<kFold>(sums[row], of_head[row]);
      }
    }
    c0 = next;
    count = next_count;
  }
  finish(sums);
}

// Adds up what blocks of columns gave to the products.
__global__ void __launch_bounds__(kJoinThreads) JoinProducts(Op op) {
  const int64_t channels = op.expand.channel_end;
  const int64_t num_rows = op.expand.row_end - op.expand.row_begin;
  const int64_t at = int64_t{blockIdx.x} * kJoinThreads + threadIdx.x;
  if (at >= num_rows * channels) return;
  const int64_t row = at / channels;
  // As the rows of a block of the kernel above have them.
  const int64_t last = min(row / kRows * kRows + kRows, num_rows) - 1;
  const int64_t blocks = ColumnBlocks(op.expand.row_begin + last + 1);
  const float* const parts = static_cast<const float*>(op.scratch) + at;
  float sum = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    sum += parts[block * num_rows * channels];
  }
  op.product[at] = sum;
}

template <ChannelFold kFold, bool kProducts, int kTaps>
absl::Status Launch(const Op& op, cudaStream_t stream) {
  const int64_t num_rows = op.expand.row_end - op.expand.row_begin;
  const int64_t column_blocks = ColumnBlocks(op.expand.num_positions);
  const int64_t num_blocks = CeilDiv(num_rows, kRows) * column_blocks;
  const int64_t join_blocks =
      CeilDiv(num_rows * op.expand.channel_end, kJoinThreads);
  if (num_blocks == 0 || join_blocks == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("HeadsFold", num_blocks));
  LIMPID_RETURN_IF_ERROR(CheckGrid("HeadsFold", join_blocks));
  Fold<kFold, kProducts, kTaps>
      <<<static_cast<unsigned>(num_blocks), kColumns, 0, stream>>>(
          op, column_blocks);
  if constexpr (kProducts) {
    JoinProducts<<<static_cast<unsigned>(join_blocks), kJoinThreads, 0,
                   stream>>>(op);
  }
  return CheckLaunch("HeadsFold");
}

}  // namespace

bool CanFold(const Op& op) {
  return op.expand.conv_weight == nullptr || op.expand.conv_width <= kMaxTaps;
}

int64_t FoldScratchBytes(const Op& op) {
  if (op.product == nullptr) return 0;
  return ColumnBlocks(op.expand.row_end) *
         (op.expand.row_end - op.expand.row_begin) * op.expand.channel_end *
         static_cast<int64_t>(sizeof(float));
}

absl::Status Run(const Op& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  return WithFoldAndProducts(
      op.fold, op.product != nullptr, [&]<ChannelFold kFold, bool kProducts>() {
        return op.expand.conv_weight == nullptr
                   ? Launch<kFold, kProducts, 1>(op, cuda_stream)
                   : Launch<kFold, kProducts, kMaxTaps>(op, cuda_stream);
      });
}

}  // namespace limpid::kernels::cuda
