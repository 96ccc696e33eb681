// SPDX-License-Identifier: Apache-2.0
//
// How the kernels behind ScalarAttentionFold make entries. Float32. With one
// state per channel an entry off the diagonal is a product of two numbers:
//   Q[i] = row_scale_i query_i times the decays from block I's begin to i,
//   K[j] = sum_d w_d source_{j+d} key_{j+d} times the decays after j + d to the
//          end of block J,
//   alpha[i, j] = Q[i] (decays of the blocks between) K[j].
// The row's own decay belongs to Q unless the recurrence has a `diagonal`. In
// products of such entries with values the sums over j of K[j] value[j] are the
// same for all rows, so that they cost nothing per entry:
//   sum over the blocks before I of all entries = Q[i] carried[I],
//   carried[J + 1] = (decays of block J) carried[J] + sum in J of K[j] value[j].
#pragma once

#include <cstdint>

#include "server/kernels/cuda/fold_parts.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

// Channels that a block of threads takes at once.
inline constexpr int kScalarChannels = 16;
// Threads of such a block, 16 by 16, with kCell by kCell entries each.
inline constexpr int kScalarThreads = 256;
inline constexpr int kCell = 8;
inline constexpr int kCells = kTile / kCell;
// Elements between channels in shared memory.
inline constexpr int kRowStride = kTile + 4;

// Bytes of factors per channel and block.
inline constexpr int64_t kScalarBlockBytes = (2 * kTile + 2) * sizeof(float);

struct ScalarGroup : FoldParts {
  ScalarGroup(const FoldParts& parts, char* factors)
      : FoldParts(parts),
        queries(reinterpret_cast<float*>(factors)),
        keys(queries + int64_t{num_blocks} * kTile * num_channels),
        through(keys + int64_t{num_blocks} * kTile * num_channels),
        sums(through + int64_t{num_blocks} * num_channels) {}

  float* queries;  // [blocks kTile, channels]
  float* keys;     // [blocks kTile, channels]
  float* through;  // [blocks, channels]: decay through a block
  float* sums;     // [blocks, channels]: of K[j] value[j] in a block
};

// Number of an operand at a position of the sequence and a head.
__device__ inline float NumberAt(const HeadOperand<float>& operand,
                                 int64_t sequence, int64_t i, int64_t head) {
  return __ldg(operand.data + sequence * operand.sequence_stride +
               i * operand.position_stride + head * operand.head_stride);
}

// In scalar_fold_diagonal.cu. Sets the op's products, too.
absl::Status FoldScalarDiagonals(const ScalarAttentionFold<float>& op,
                                 const ScalarGroup& group, cudaStream_t stream);

}  // namespace limpid::kernels::cuda
