// SPDX-License-Identifier: Apache-2.0
//
// How the kernels behind ScalarAttentionFold make entries. Float32. With one
// state per channel an entry off the diagonal is a product of two numbers:
//   Q[i] = row_scale_i query_i times the decays from block I's begin to i,
//   K[j] = sum_d w_d source_{j+d} key_{j+d} times the decays after j + d to the
//          end of block J,
//   alpha[i, j] = Q[i] (decays of the blocks between) K[j].
// The row's own decay belongs to Q unless the recurrence has a `diagonal`. The
// magnitude of a product is the product of the magnitudes: where a fold adds
// such, its factors are taken in their place and an entry is one multiply-add.
//
// In products of such entries with values the sums over j of K[j] value[j] are
// the same for all rows, so that they cost nothing per entry:
//   sum over the blocks before I of all entries = Q[i] carried[I],
//   carried[J + 1] = (decays of block J) carried[J] + sum in J of K[j]
//   value[j].
//
// Three kernels, one after the other: diagonal parts and all factors; tiles;
// what joins the parts of the splits and adds what is carried.
#pragma once

#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/fold_parts.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

// Channels that the kernel of the diagonal takes at once, and the one of tiles.
inline constexpr int kScalarChannels = 16;
inline constexpr int kTileChannels = 8;
inline constexpr int kScalarThreads = 256;
inline constexpr int kCell = 8;
inline constexpr int kCells = kTile / kCell;
// Elements between channels in shared memory.
inline constexpr int kRowStride = kTile + 4;

// Channels in splits of equal size but for the last one.
struct ChannelSplits {
  int count = 1;
  int channels = 0;  // of a split
};

// A group of channels, and where its parts are.
struct ScalarGroup {
  int channel_begin = 0;
  int num_channels = 0;
  int num_blocks = 0;
  // From position to position: the number of channels as a multiple of
  // kScalarChannels. Channels that do not exist have factors of zero.
  int64_t stride = 0;
  ChannelSplits tile_splits, diagonal_splits;

  float* queries = nullptr;  // [blocks kTile, stride]
  float* keys = nullptr;     // [blocks kTile, stride]
  float* through = nullptr;  // [blocks, stride]: decay through a block
  float* sums = nullptr;     // [blocks, stride]: of K[j] value[j] in a block
  // Folds of the channels of a split: [splits, tiles, kTile, kTile] and
  // [splits, blocks, kTile, kDiagonalStride].
  float* tiles = nullptr;
  float* diagonals = nullptr;

  __host__ __device__ int num_tiles() const {
    return num_blocks * (num_blocks - 1) / 2;
  }
};

// Whether what a fold adds for a product follows from what it would add for the
// factors. Squares of factors could be too small, or large, for float32 where
// that of the product is not.
template <ChannelFold kFold>
inline constexpr bool kFoldsFactors =
    kFold == ChannelFold::kSum || kFold == ChannelFold::kSumAbs ||
    kFold == ChannelFold::kWeightedSumAbs;

// What stands for a factor of entries in FoldedProduct. Exactly one of an
// entry's factors has the channel's weight, all others 1.
template <ChannelFold kFold>
__device__ float FoldedFactor(float x, float weight = 1) {
  if (kFold == ChannelFold::kSumAbs) return fabsf(x);
  if (kFold == ChannelFold::kWeightedSumAbs) return weight * fabsf(x);
  return x;
}

// sum with the entry query key of one more channel.
template <ChannelFold kFold>
__device__ float FoldedProduct(float sum, float query, float key) {
  if (kFoldsFactors<kFold>) return fmaf(query, key, sum);
  return Folded<kFold>(sum, query * key, 1.0f);
}

__device__ inline float4 QuadAt(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}

// In scalar_fold_diagonal.cu. Sets the group's factors and the op's products
// but for what the blocks before give.
absl::Status FoldScalarDiagonals(const ScalarAttentionFold<float>& op,
                                 const ScalarGroup& group, cudaStream_t stream);

// In scalar_fold_join.cu. Joins the splits with the accumulator and completes
// the products.
absl::Status JoinScalarParts(const ScalarAttentionFold<float>& op,
                             const ScalarGroup& group, cudaStream_t stream);

}  // namespace limpid::kernels::cuda
