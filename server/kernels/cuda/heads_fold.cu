// SPDX-License-Identifier: Apache-2.0
//
// Channels share the matrix of their head: a thread has one column and a few
// rows of it in registers while it goes through them. What belongs to a
// position and a channel lies far apart in memory and is staged in shared
// memory, some channels at a time. Products are summed over the columns of a
// block, and over blocks of columns by a second kernel, both in a fixed order.
#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

using Op = HeadsFold<float>;

constexpr int kColumns = 128;  // of a block, one per thread
constexpr int kRows = 8;
constexpr int kWarps = kColumns / 32;
constexpr int kChannels = 32;  // staged at a time
constexpr int kMaxTaps = 4;
constexpr int kJoinThreads = 128;

// Blocks of columns that have entries in the rows before `end`.
__host__ __device__ int64_t ColumnBlocks(int64_t end) {
  return (end + kColumns - 1) / kColumns;
}

// The sums of eight numbers over the lanes of a warp: of the number that
// SummedRow names, in each lane.
__device__ float SumRows(float (&x)[kRows]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int count = kRows / 2, mask = 16; count > 0; count /= 2, mask /= 2) {
    const bool upper = (lane & mask) != 0;
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const float sent = upper ? x[k] : x[k + count];
      const float kept = upper ? x[k + count] : x[k];
      x[k] = kept + __shfl_xor_sync(0xffffffffu, sent, mask);
    }
  }
  float sum = x[0];
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  return sum + __shfl_xor_sync(0xffffffffu, sum, 1);
}
__device__ int SummedRow() { return threadIdx.x % 32 / 4; }

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
  float product[kWarps][kRows][kChannels];
};

template <ChannelFold kFold, bool kProducts, int kTaps>
__global__ void __launch_bounds__(kColumns) Fold(Op op, int64_t column_blocks) {
  __shared__ Staged<kTaps> staged;
  const ExpandHeads<float>& e = op.expand;
  const int64_t length = e.num_positions;
  const int64_t num_rows = e.row_end - e.row_begin;
  const int64_t first_row =
      e.row_begin + blockIdx.x / column_blocks * kRows;
  const int64_t first = blockIdx.x % column_blocks * kColumns;
  const int64_t j = first + threadIdx.x;
  const int rows = static_cast<int>(min(int64_t{kRows}, e.row_end - first_row));
  const auto finish = [&](const float (&sums)[kRows]) {
    if (j >= length) return;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r < rows) {
        float& out =
            op.accumulator[(first_row - e.row_begin + r) * length + j];
        out = Joined<kFold>(out, sums[r]);
      }
    }
  };
  if (first >= first_row + rows) {  // above the diagonal, where all is zero
    const float zeros[kRows] = {};
    return finish(zeros);
  }

  float sums[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) sums[r] = EmptyFold<kFold>();
  const int width = e.conv_weight == nullptr ? 1 : static_cast<int>(e.conv_width);
  const int64_t per_head = e.channels_per_head;
  // Whether the skip connection meets the thread's column.
  const bool at_skip = e.skip != nullptr && j < first_row + kRows &&
                       j + kTaps > first_row;
  for (int64_t begin = 0; begin < e.channel_end; begin += per_head) {
    float head[kRows][kTaps];
    const float* const entries =
        e.heads +
        (begin / per_head * num_rows + first_row - e.row_begin) * length + j;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int d = 0; d < kTaps; ++d) {
        head[r][d] = r < rows && d < width && j + d < length
                         ? __ldg(entries + r * length + d)
                         : 0.0f;
      }
    }
    // Of this head alone, lest a sum of many terms lose digits.
    float of_head[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) of_head[r] = EmptyFold<kFold>();
    const int64_t end = min(begin + per_head, e.channel_end);
    for (int64_t c0 = begin; c0 < end; c0 += kChannels) {
      const int count = static_cast<int>(min(int64_t{kChannels}, end - c0));
      __syncthreads();
      const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
      if (lane < count) {
        const int64_t c = c0 + lane;
        for (int x = warp; x < kColumns + kTaps - 1; x += kWarps) {
          const int64_t at = first + x;
          staged.source[x][lane] =
              at >= length ? 0.0f
              : e.source_scale == nullptr
                  ? 1.0f
                  : __ldg(e.source_scale + at * e.source_stride + c);
          if (kProducts && x < kColumns) {
            staged.value[x][lane] =
                at >= length ? 0.0f
                             : __ldg(op.value + at * op.value_stride + c);
          }
        }
        for (int r = warp; r < kRows; r += kWarps) {
          staged.row_scale[lane][r] =
              r >= rows ? 0.0f
              : e.row_scale == nullptr
                  ? 1.0f
                  : __ldg(e.row_scale + (first_row + r) * e.row_stride + c);
        }
        for (int d = warp; d < kTaps; d += kWarps) {
          staged.taps[lane][d] =
              d >= width               ? 0.0f
              : e.conv_weight == nullptr ? 1.0f
                                         : e.conv_weight[c * width + width - 1 - d];
        }
        if (warp == 0) {
          staged.skip[lane] = e.skip == nullptr ? 0.0f : e.skip[c];
          staged.weight[lane] =
              kFold == ChannelFold::kWeightedSumAbs ? op.weight[c] : 1.0f;
        }
      }
      __syncthreads();
      for (int c = 0; c < count; ++c) {
        float source[kTaps];
#pragma unroll
        for (int d = 0; d < kTaps; ++d) {
          source[d] = staged.taps[c][d] * staged.source[threadIdx.x + d][c];
        }
        const float skip = staged.skip[c], weight = staged.weight[c];
        const float value = kProducts ? staged.value[threadIdx.x][c] : 0.0f;
        float products[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          float entry = 0;
#pragma unroll
          for (int d = 0; d < kTaps; ++d) entry += source[d] * head[r][d];
          if (at_skip) {
#pragma unroll
            for (int d = 0; d < kTaps; ++d) {
              if (j + d == first_row + r) entry += source[d] * skip;
            }
          }
          entry *= staged.row_scale[c][r];
          of_head[r] = Folded<kFold>(of_head[r], entry, weight);
          products[r] = entry * value;
        }
        if (kProducts) {
          const float sum = SumRows(products);
          if (lane % 4 == 0) staged.product[warp][SummedRow()][c] = sum;
        }
      }
      if (kProducts) {
        __syncthreads();
        for (int r = warp; r < rows; r += kWarps) {
          if (lane >= count) continue;
          float sum = 0;
          for (int w = 0; w < kWarps; ++w) sum += staged.product[w][r][lane];
          float* const parts = static_cast<float*>(op.scratch) +
                               first / kColumns * num_rows * e.channel_end;
          parts[(first_row - e.row_begin + r) * e.channel_end + c0 + lane] =
              sum;
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r] = Joined<kFold>(sums[r], of_head[r]);
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
  if (!kProducts) return CheckLaunch("HeadsFold");
  LIMPID_RETURN_IF_ERROR(CheckLaunch("HeadsFold"));
  JoinProducts<<<static_cast<unsigned>(join_blocks), kJoinThreads, 0,
                 stream>>>(op);
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
