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
// In a diagonal part it is the same again with blocks of kSub, and below that a
// recurrence.
//
// The products run on tensor cores. float32 is two halves, x = high + low to 22
// bits, and a product is high high + high low + low high. Halves have few
// exponents, so K[., n] is scaled by a power of two per channel, block and
// state, and Q by what makes the scale of all channels of a tile one and the
// same, S.
#pragma once

#include <cstdint>

#include "server/kernels/cuda/fold_parts.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

inline constexpr int kSub = 16;
inline constexpr int kFoldStates = 16;

// Everything of one channel and one block that off-diagonal tiles need, in the
// order in which the lanes of a warp take it: fragments of mma.m16n8k16.
struct alignas(16) BlockFactors {
  // Of 8 columns: states 2t and 2t + 1, 2t + 8 and 2t + 9 of column g, high
  // halves and then low ones, for lane 4 g + t.
  uint4 key[kTile / 8][32];
  // Of 16 rows, for lane 4 g + t: states 2t and 2t + 1 of rows g and g + 8,
  // then 2t + 8 and 2t + 9.
  float4 query[kTile / 16][2][32];
  // What the columns are multiplied with for the products.
  float value[kTile];
  // Per state: 1 / scale of the keys; largest |Q|; largest |Q| and |K| without
  // the decays.
  float key_unscale[kFoldStates];
  float query_most[kFoldStates];
  float query_bound[kFoldStates];
  float key_bound[kFoldStates];
  // Sum of delta.
  float sum_delta[4];
};

struct FoldGroup : FoldParts {
  BlockFactors* factors = nullptr;  // [channels, blocks]
};

// In ssm_fold_diagonal.cu.
absl::Status FoldDiagonals(const SsmAttentionFold<float>& op,
                           const FoldGroup& group, cudaStream_t stream);

}  // namespace limpid::kernels::cuda
