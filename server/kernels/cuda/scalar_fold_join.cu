// SPDX-License-Identifier: Apache-2.0
//
// What ends ScalarAttentionFold: splits are joined, and products get what the
// blocks before their rows give.
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/scalar_fold.h"

namespace limpid::kernels::cuda {
namespace {

using Op = ScalarAttentionFold<float>;

// Channels, and groups of rows, of a block of threads that completes products.
constexpr int kSide = 32;
constexpr int kRowGroups = kScalarThreads / kSide;
// Loads that are on their way at once.
constexpr int kLoads = 8;

// A thread per entry of the matrix; `row_blocks` blocks of threads per row.
template <ChannelFold kFold>
__device__ void JoinEntries(const Op& op, const ScalarGroup& group, int block,
                            int row_blocks) {
  const int length = static_cast<int>(op.recurrence.num_positions);
  const int i = block / row_blocks;
  const int j = block % row_blocks * kScalarThreads + threadIdx.x;
  constexpr bool kExtreme =
      kFold == ChannelFold::kMax || kFold == ChannelFold::kMin;
  // Entries above the diagonal are zeros.
  if (j >= length || (!kExtreme && j > i)) return;
  float& entry = op.accumulator[int64_t{i} * length + j];
  float sum = entry;
  if (j > i) {
    entry = Joined<kFold>(sum, 0.0f);
    return;
  }
  const int row = i / kTile, r = i % kTile;
  const int column = (j + kShift) / kTile;
  const bool tile = column < row;
  const float* const part =
      tile ? group.tiles +
                 (row * (row - 1) / 2 + column) * (int64_t{kTile} * kTile) +
                 r * kTile + (j + kShift) % kTile
           : group.diagonals + row * (int64_t{kTile} * kDiagonalStride) +
                 r * kDiagonalStride + j + kShift - row * kTile;
  const int64_t stride =
      tile ? group.num_tiles() * (int64_t{kTile} * kTile)
           : group.num_blocks * (int64_t{kTile} * kDiagonalStride);
  const int count =
      tile ? group.tile_splits.count : group.diagonal_splits.count;
#pragma unroll kLoads
  for (int s = 0; s < count; ++s) {
    sum = Joined<kFold>(sum, part[s * stride]);
  }
  entry = sum;
}

// kSide channels of a block of rows, but for the first one, which has nothing
// before it.
__device__ void CarryProducts(const Op& op, const ScalarGroup& group, int place,
                              int channel_blocks) {
  const int row = place / channel_blocks + 1;
  const int channel =
      place % channel_blocks * kSide + static_cast<int>(threadIdx.x) % kSide;
  if (channel >= group.num_channels) return;
  float carried = 0;
#pragma unroll kLoads
  for (int b = 0; b < row; ++b) {
    const int64_t at = b * group.stride + channel;
    carried = group.through[at] * carried + group.sums[at];
  }
  const int64_t channels = op.recurrence.num_heads;
  float* const products = op.product + group.channel_begin + channel;
#pragma unroll kLoads
  for (int r = threadIdx.x / kSide; r < kTile; r += kRowGroups) {
    const int64_t i = int64_t{row} * kTile + r;
    if (i >= op.recurrence.num_positions) break;
    products[i * channels] +=
        group.queries[i * group.stride + channel] * carried;
  }
}

// Blocks of threads that complete products, which take longer, come first.
template <ChannelFold kFold>
__global__ void __launch_bounds__(kScalarThreads)
    JoinParts(Op op, ScalarGroup group, int product_blocks, int channel_blocks,
              int row_blocks) {
  const int block = static_cast<int>(blockIdx.x);
  if (block < product_blocks) {
    CarryProducts(op, group, block, channel_blocks);
  } else {
    JoinEntries<kFold>(op, group, block - product_blocks, row_blocks);
  }
}

}  // namespace

absl::Status JoinScalarParts(const Op& op, const ScalarGroup& group,
                             cudaStream_t stream) {
  const int64_t length = op.recurrence.num_positions;
  const int64_t row_blocks = CeilDiv(length, kScalarThreads);
  const int64_t channel_blocks = CeilDiv(group.num_channels, kSide);
  const int64_t product_blocks =
      op.product == nullptr ? 0 : (group.num_blocks - 1) * channel_blocks;
  const int64_t blocks = product_blocks + length * row_blocks;
  LIMPID_RETURN_IF_ERROR(CheckGrid("ScalarAttentionFold", blocks));
  return WithFold(op.fold, [&]<ChannelFold kFold>() {
    JoinParts<kFold>
        <<<static_cast<unsigned>(blocks), kScalarThreads, 0, stream>>>(
            op, group, static_cast<int>(product_blocks),
            static_cast<int>(channel_blocks), static_cast<int>(row_blocks));
    return CheckLaunch("ScalarAttentionFold");
  });
}

}  // namespace limpid::kernels::cuda
