// SPDX-License-Identifier: Apache-2.0
//
// What the attribution methods mean, as loops straight from their formulas, in
// double precision, on plain arrays: nothing is cut to the rows that matter,
// nothing is batched, and every matrix is made.
//
// Shape letters: L positions, D channels, E width of the stream.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "server/attribution/options.h"
#include "server/reduce/channel_reduction.h"

namespace limpid::reference {

using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;  // of rows

// A block at one input. Its output is alpha value + bias per channel, and it
// adds weight output + weight_bias to the stream.
struct Block {
  std::vector<Matrix> alpha;  // D matrices [L, L]
  Matrix value;               // [L, D]
  Matrix direct;              // [L, D] or empty: the own token's part of bias
  Matrix output;              // [L, D]
  Matrix weight;              // [E, D]
  Vector weight_bias;         // [E] or empty
  Matrix stream;              // [L, E], before the block
  Matrix
      gradient;  // [L, E]: of the target by what the block adds to the stream
};
using Blocks = std::vector<Block>;  // first layer first

// One matrix [L, L] of a block's alpha; `reduction` is any but kAll.
Matrix Reduced(const Block& block, ChannelReduction reduction);

// The methods that look at attention: the values [L] of the explained position.
// Options that are not set have the method's default.
Vector RawAttention(const Blocks& blocks, ChannelReduction reduction,
                    const MethodOptions& options, int64_t position);
Vector AttentionRollout(const Blocks& blocks, ChannelReduction reduction,
                        const MethodOptions& options, int64_t position);
// With compat upstream the matrices of which every row is the explained one's,
// of the first `seen` positions, are really multiplied.
Vector AttentionGradient(const Blocks& blocks, ChannelReduction reduction,
                         const MethodOptions& options, int64_t position,
                         int64_t seen);
Vector ValueContribution(const Blocks& blocks, const MethodOptions& options,
                         int64_t position);
Vector Alti(const Blocks& blocks, const MethodOptions& options,
            int64_t position);

// The methods that look at the explained number f of embeddings [L, E].
using ScoreAt = std::function<double(const Matrix& embeddings)>;
using GradientAt = std::function<Matrix(const Matrix& embeddings)>;

Vector GradientNorm(const Matrix& gradient, const MethodOptions& options);
// [L, E]: before the sum over E.
Matrix InputXGradient(const Matrix& gradient, const Matrix& input);
// [L, E]. Options must name the rule and the steps.
Matrix IntegratedGradients(const Matrix& baseline, const Matrix& input,
                           const MethodOptions& options,
                           const GradientAt& gradient);
// Of a frozen network, which is affine: what f gains by each token alone.
Vector FrozenLinear(const Matrix& input, const ScoreAt& frozen);
// Mean fall of f over the windows (lists of positions) that cover a position; 0
// where none does.
Vector Occlusion(const Matrix& input, const Matrix& replacement,
                 const std::vector<std::vector<int64_t>>& windows,
                 const ScoreAt& score);

Vector SumOverWidth(const Matrix& elementwise);

}  // namespace limpid::reference
