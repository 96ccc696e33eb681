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
// Loads of numbers that are on their way at once.
constexpr int kLoads = 8;

// Columns of a thread. Those of parts begin kShift before the matrix.
constexpr int kQuad = 4;
// Loads of quads that are on their way at once: whole batches of them, since
// what is left of a loop would wait for each.
constexpr int kQuadLoads = 8;

// A thread per row and four columns; `row_blocks` blocks of threads per row.
template <ChannelFold kFold>
__device__ void JoinEntries(const Op& op, const ScalarGroup& group, int block,
                            int row_blocks) {
  const int length = static_cast<int>(op.recurrence.num_positions);
  const int i = block / row_blocks;
  const int at =
      (block % row_blocks * kScalarThreads + static_cast<int>(threadIdx.x)) *
      kQuad;
  const int j = at - kShift;
  constexpr bool kExtreme =
      kFold == ChannelFold::kMax || kFold == ChannelFold::kMin;
  // Entries above the diagonal are zeros.
  if (j >= length || (!kExtreme && j > i)) return;
  float sums[kQuad];
  float* const entries = op.accumulator + int64_t{i} * length + j;
  const int end = kExtreme ? length : i + 1;
#pragma unroll
  for (int x = 0; x < kQuad; ++x) {
    sums[x] = j + x >= 0 && j + x < end ? entries[x] : 0;
  }
  const auto join = [&](const float4& part) {
    const float numbers[kQuad] = {part.x, part.y, part.z, part.w};
#pragma unroll
    for (int x = 0; x < kQuad; ++x) {
      // A quad can cross the diagonal, beyond which parts have no numbers.
      sums[x] = Joined<kFold>(sums[x], j + x <= i ? numbers[x] : 0.0f);
    }
  };
  const int row = i / kTile, r = i % kTile, column = at / kTile;
  if (j > i) {
    join({0, 0, 0, 0});
  } else {
    const bool tile = column < row;
    const float* part =
        tile ? group.tiles +
                   (int64_t{row} * (row - 1) / 2 + column) * kTile * kTile +
                   r * kTile + at % kTile
             : group.diagonals + (int64_t{row} * kTile + r) * kDiagonalStride +
                   at - row * kTile;
    const int64_t stride =
        tile ? int64_t{group.num_tiles()} * kTile * kTile
             : int64_t{group.num_blocks} * kTile * kDiagonalStride;
    const int count =
        tile ? group.tile_splits.count : group.diagonal_splits.count;
    for (int s = 0; s < count; s += kQuadLoads) {
      float4 quads[kQuadLoads];
#pragma unroll
      for (int n = 0; n < kQuadLoads; ++n) {
        if (s + n < count)
          quads[n] = __ldg(reinterpret_cast<const float4*>(part));
        part += stride;
      }
#pragma unroll
      for (int n = 0; n < kQuadLoads; ++n) {
        if (s + n < count) join(quads[n]);
      }
    }
  }
#pragma unroll
  for (int x = 0; x < kQuad; ++x) {
    if (j + x >= 0 && j + x < end) entries[x] = sums[x];
  }
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
  for (int b = 0; b < row; b += kLoads) {
    float through[kLoads], sums[kLoads];
#pragma unroll
    for (int n = 0; n < kLoads; ++n) {
      const int64_t at = (b + n) * group.stride + channel;
      through[n] = b + n < row ? __ldg(group.through + at) : 1.0f;
      sums[n] = b + n < row ? __ldg(group.sums + at) : 0.0f;
    }
#pragma unroll
    for (int n = 0; n < kLoads; ++n) carried = through[n] * carried + sums[n];
  }
  // Of the thread's rows, kRowGroups apart.
  const int64_t first = int64_t{row} * kTile + threadIdx.x / kSide;
  const int64_t channels = op.recurrence.num_heads;
  float* const products = op.product + group.channel_begin + channel;
  for (int64_t i = first; i < (row + 1) * int64_t{kTile};
       i += kLoads * kRowGroups) {
    float queries[kLoads], sums[kLoads];
#pragma unroll
    for (int n = 0; n < kLoads; ++n) {
      const int64_t at = i + n * kRowGroups;
      if (at >= op.recurrence.num_positions) continue;
      queries[n] = __ldg(group.queries + at * group.stride + channel);
      sums[n] = products[at * channels];
    }
#pragma unroll
    for (int n = 0; n < kLoads; ++n) {
      const int64_t at = i + n * kRowGroups;
      if (at >= op.recurrence.num_positions) continue;
      products[at * channels] = sums[n] + queries[n] * carried;
    }
  }
}

// Blocks of threads that complete products, which take longer, come first.
template <ChannelFold kFold>
__global__ void __launch_bounds__(kScalarThreads, 4)
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
  const int64_t row_blocks = CeilDiv(length + kShift, kScalarThreads * kQuad);
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
