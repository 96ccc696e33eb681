// SPDX-License-Identifier: Apache-2.0
//
// What the kernels that fold attention on the chip share: how they cut the
// matrix, and what joins their parts.
//
// Positions are cut into blocks of kTile. The columns of a block begin kShift
// before it, so that all taps of a column end within its block. A tile has the
// rows of one block and the columns of an earlier one; a diagonal part has the
// rows of a block and the kDiagonal columns from kShift before it up to the
// diagonal.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

inline constexpr int kTile = 128;
// Convolutions have at most kTaps taps.
inline constexpr int kTaps = 4;
inline constexpr int kShift = kTaps - 1;
inline constexpr int kDiagonal = kTile + kShift;
// Elements between the rows of a diagonal part.
inline constexpr int kDiagonalStride = kDiagonal + 1;

// A group of sequences and channels, and where the parts of its first sequence
// are.
struct FoldParts {
  int sequence_begin = 0;
  int num_sequences = 1;
  int64_t sequence_bytes = 0;  // from the parts of a sequence to the next one's
  int channel_begin = 0;
  int num_channels = 0;
  int num_blocks = 0;
  // Whether the last block has so few rows that its diagonal takes half as long
  // as another's: see FoldTarget.
  bool has_short_block = false;
  // Channels of a group are split, so that there is work for all
  // multiprocessors; at the diagonal those of the last block otherwise than
  // those of the blocks before.
  int tile_splits = 1, diagonal_splits = 1, last_splits = 1;
  // Folds of the channels of a split: [tile_splits, tiles, kTile, kTile] and
  // [diagonal parts, kTile, kDiagonalStride], all parts of a block one after
  // the other.
  float* tiles = nullptr;
  float* diagonals = nullptr;
  // What diagonal parts give to the products: [channels, blocks, kTile]; null:
  // not wanted.
  float* products = nullptr;

  // Off the diagonal: tile row (row - 1) / 2 + column.
  __host__ __device__ int num_tiles() const {
    return num_blocks * (num_blocks - 1) / 2;
  }
  __host__ __device__ int num_diagonal_parts() const {
    return FirstDiagonalPartOf(num_blocks - 1) + last_splits;
  }
  __host__ __device__ int FirstDiagonalPartOf(int block) const {
    return block * diagonal_splits;
  }
  __host__ __device__ int DiagonalSplitsOf(int block) const {
    return block + 1 < num_blocks ? diagonal_splits : last_splits;
  }
  __device__ float* ProductsOf(int channel, int block) const {
    return products + (int64_t{channel} * num_blocks + block) * kTile;
  }
  __device__ int SplitBegin(int split, int splits) const {
    return static_cast<int>(int64_t{num_channels} * split / splits);
  }
};

// Moves a pointer to the parts of a sequence, counted from the group's first.
template <typename T>
__device__ inline void MoveToSequence(const FoldParts& parts, int sequence,
                                      T*& pointer) {
  if (pointer == nullptr) return;
  pointer = reinterpret_cast<T*>(reinterpret_cast<char*>(pointer) +
                                 sequence * parts.sequence_bytes);
}

__device__ inline FoldParts SequenceOf(FoldParts parts, int sequence) {
  MoveToSequence(parts, sequence, parts.tiles);
  MoveToSequence(parts, sequence, parts.diagonals);
  MoveToSequence(parts, sequence, parts.products);
  return parts;
}

// Rows and columns of a tile, in blocks.
struct TilePlace {
  int row, column;
};
__device__ inline TilePlace PlaceOfTile(int tile) {
  int row = static_cast<int>((1 + sqrtf(1 + 8.0f * tile)) / 2);
  while (row * (row - 1) / 2 > tile) --row;
  while ((row + 1) * row / 2 <= tile) ++row;
  return {row, tile - row * (row - 1) / 2};
}

// taps[d] multiplies what stands d positions to the right.
__device__ inline void LoadTaps(const float* conv_weight, int64_t width,
                                int64_t c, float (&taps)[kTaps]) {
#pragma unroll
  for (int d = 0; d < kTaps; ++d) {
    taps[d] = conv_weight == nullptr ? (d == 0 ? 1.0f : 0.0f)
              : d < width            ? conv_weight[c * width + width - 1 - d]
                                     : 0.0f;
  }
}

// What an op folds into: accumulator [B, L, L].
struct FoldTarget {
  ChannelFold fold;
  int64_t num_sequences;
  int64_t num_positions;
  float* accumulator;
  bool has_products;
  // A last block of at most so many rows is short if channels come by eights.
  int short_rows = 0;
};

// Groups of the sequences and of the channels [begin, end) whose parts, and
// `block_bytes` for every channel and block of a sequence, are held at once.
class FoldPlan {
 public:
  FoldPlan(const FoldTarget& target, int64_t channel_begin, int64_t channel_end,
           int64_t block_bytes);

  int64_t bytes() const;
  // Calls run(parts, factors): `factors` are block_bytes for every channel and
  // block of the first sequence, parts.sequence_bytes before those of the next
  // one. Then joins the parts.
  template <typename Run>
  absl::Status ForEachGroup(void* scratch, cudaStream_t stream,
                            const Run& run) const {
    for (int64_t s = 0; s < target_.num_sequences; s += sequences_) {
      for (int64_t c = begin_; c < end_; c += channels_) {
        char* factors = nullptr;
        const FoldParts parts = Group(s, c, scratch, &factors);
        LIMPID_RETURN_IF_ERROR(run(parts, factors));
        LIMPID_RETURN_IF_ERROR(Join(parts, stream));
      }
    }
    return absl::OkStatus();
  }

 private:
  struct PartBytes {
    int64_t factors, tiles, diagonals, products;
  };

  // Without pointers, of a group that is not the last one.
  FoldParts Sizes(int64_t channels) const;
  void SplitDiagonals(FoldParts& parts) const;
  // At least as much as of any group with fewer channels.
  PartBytes BytesOf(const FoldParts& parts) const;
  FoldParts Group(int64_t sequence, int64_t channel, void* scratch,
                  char** factors) const;
  absl::Status Join(const FoldParts& parts, cudaStream_t stream) const;

  const FoldTarget target_;
  const int64_t begin_, end_, block_bytes_;
  int64_t sequences_ = 0, channels_ = 0;  // of a group
};

}  // namespace limpid::kernels::cuda
