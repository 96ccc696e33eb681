// SPDX-License-Identifier: Apache-2.0
//
// How the kernels behind SsmAttentionFold make entries, and the memory that
// they hand on to each other. Float32.
//
// The matrix is cut as fold_parts.h says. For row i of block I and a key of
// block J < I the decays between them are three factors, all at most 1: from
// the end of block I - 1 to i, through the blocks in between, and from the key
// to the end of block J (spec: method B). The first goes into the query, the
// last into the key, and the convolution, the gate and the activation ratio
// into them as well (arXiv:2405.16504):
//   Q[i, n] = row_scale_i c_i[n] exp(a_n sum of delta from block I's begin to
//   i) K[j, n] = sum_d w_d source_{j+d} delta_{j+d} b_{j+d}[n]
//             exp(a_n sum of delta after j + d to block J's end)
//   alpha[i, j] = sum_n Q[i, n] exp(a_n delta between) K[j, n].
// In a diagonal part it is the same again with smaller and smaller blocks.
//
// The products run on tensor cores. float32 is two halves, x = high + low to 22
// bits, and a product is high high + high low + low high. Halves have few
// exponents, so the keys of a channel and block are in units of a power of two,
// and what multiplies them is scaled by another that all channels of a tile
// share, S: sums over channels then need no scale of their own.
//
// In products of entries off the diagonal with values the sums over j of K[j,
// n] value[j] are the same for all rows, so that they cost nothing per entry
// (ssm_fold_products.cu). What the convolution's bias gives comes with them: it
// is the recurrence's answer to a constant, whose state is one more sum over j.
//
// Keys are made once per block. Queries are not: they are c, which all channels
// share, times few numbers per row, so that every tile makes its own instead of
// reading 64 bytes per row and channel.
#pragma once

#include <cstdint>

#include "server/kernels/cuda/fold_parts.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

inline constexpr int kFoldStates = 16;

// What tiles need of the columns of one channel and block.
struct alignas(16) ColumnFactors {
  // Of 8 columns: high halves of states 0, 1, 4, 5, 8, 9, 12, 13 of each, of
  // the others, and the same for low halves: lane t of a fragment has states 4t
  // to 4t + 3. Matrices of 8 rows of 16 bytes, as ldmatrix and wgmma take them.
  uint4 keys[kTile / 8][4][8];
  // Of either half of the columns: sum of K[j] value[j], and of the bias's
  // keys; states 4t to 4t + 3.
  float4 value_keys[2][kFoldStates / 4];
  float rate[kFoldStates];  // a log2(e)
  float taps[kTaps];
  float unit;  // of the keys
  float skip;
  float weight;
  float conv_bias;
};

// And of the rows.
struct RowFactor {
  float sum;    // of delta from the block's begin up to the row
  float scale;  // row_scale
};
struct alignas(16) RowFactors {
  RowFactor rows[kTile];
};

struct BlockFactors {
  ColumnFactors columns;
  RowFactors rows;
  float key_bound;    // at least |K| of any state
  float query_bound;  // at least |row_scale c| of any state
  float sum_delta;
};

struct FoldGroup : FoldParts {
  BlockFactors* factors = nullptr;  // [channels, blocks]

  __device__ BlockFactors& FactorsAt(int channel, int block) const {
    return factors[int64_t{channel} * num_blocks + block];
  }
};

// The op and the parts of one sequence.
__host__ __device__ inline SsmAttentionFold<float> SequenceOf(
    SsmAttentionFold<float> op, int64_t sequence) {
  SsmAttention<float>& attention = op.attention;
  const auto& strides = op.sequence_strides;
  const int64_t length = attention.ssm.num_positions;
  attention.ssm.delta += sequence * strides.delta;
  attention.ssm.b += sequence * strides.b;
  attention.ssm.c += sequence * strides.c;
  // What is not there has no strides.
  attention.source_scale += sequence * strides.source_scale;
  attention.row_scale += sequence * strides.row_scale;
  op.value += sequence * strides.value;
  op.accumulator += sequence * length * length;
  if (op.product != nullptr) {
    op.product += sequence * length * attention.ssm.num_channels;
  }
  return op;
}
__device__ inline FoldGroup SequenceOf(FoldGroup group, int sequence) {
  MoveToSequence(group, sequence, group.factors);
  return {SequenceOf(static_cast<const FoldParts&>(group), sequence),
          group.factors};
}

// Sets all of BlockFactors but the arrays of columns and rows, in
// ssm_fold_bounds.cu.
absl::Status BoundFactors(const SsmAttentionFold<float>& op,
                          const FoldGroup& group, cudaStream_t stream);
// Whether the current device has the shared memory for FoldDiagonals: A100,
// H100 and newer ones of their kind.
bool DiagonalsFit();
// Rows of a short block (fold_parts.h), for which it takes shared memory that
// only H100 and newer ones have; 0 elsewhere.
int ShortRows();
// Folds the parts at the diagonal, and sets the arrays: in
// ssm_fold_diagonal.cu.
absl::Status FoldDiagonals(const SsmAttentionFold<float>& op,
                           const FoldGroup& group, cudaStream_t stream);
// Sets the op's products, from what FoldDiagonals has set.
absl::Status FoldProducts(const SsmAttentionFold<float>& op,
                          const FoldGroup& group, cudaStream_t stream);
// The tiles off the diagonal, by what the tensor cores of every GPU since A100
// do, in ssm_fold_tiles.cu, or by what only those of H100 and its kin do.
absl::Status FoldTiles(const SsmAttentionFold<float>& op,
                       const FoldGroup& group, cudaStream_t stream);
#ifdef LIMPID_WITH_HOPPER
absl::Status FoldTilesOnHopper(const SsmAttentionFold<float>& op,
                               const FoldGroup& group, cudaStream_t stream);
#endif

}  // namespace limpid::kernels::cuda
