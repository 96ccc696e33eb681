// SPDX-License-Identifier: Apache-2.0
//
// The kernels as functions on tensors: dispatch by device and dtype, threads on
// the CPU, the current stream on a GPU, and scans as differentiable
// operations.
#pragma once

#include <ATen/core/Tensor.h>

#include "server/kernels/ops.h"

namespace limpid {

// An S6 recurrence frozen at one input; see kernels::SelectiveSsm. Innermost
// dimensions are contiguous; positions may be strided.
struct FrozenSsm {
  at::Tensor delta;  // [L, D]
  at::Tensor a;      // [D, N]
  at::Tensor b;      // [L, N]
  at::Tensor c;      // [L, N]
  at::Tensor skip;   // [D] or undefined
};

// Factors around the recurrence; undefined: identity.
struct FrozenFactors {
  at::Tensor source_scale;  // [L, D]
  at::Tensor conv_weight;   // [D, K]
  at::Tensor row_scale;     // [L, D]
};

// [L, D] contiguous from u [L, D].
at::Tensor SelectiveScan(const FrozenSsm& ssm, const at::Tensor& u);

// [L, D] contiguous from x [L, D], weight [D, K], bias [D] or undefined.
at::Tensor CausalConv1d(const at::Tensor& x, const at::Tensor& weight,
                        const at::Tensor& bias);

// Entries of the implicit attention, into out [channels, rows, L].
void SsmAttention(const FrozenSsm& ssm, const FrozenFactors& factors,
                  int64_t channel_begin, int64_t row_begin, at::Tensor& out);

// A recurrence with a matrix state per head, frozen at one input; see
// kernels::StateRecurrence. All [B, L, H, N] with any strides, `diagonal`
// [B, L, H]; undefined as there.
struct FrozenRecurrence {
  at::Tensor query;
  at::Tensor key;
  at::Tensor decay;
  at::Tensor left;
  at::Tensor right;
  at::Tensor diagonal;

  // That of one sequence, with B = 1.
  FrozenRecurrence Sequence(int64_t index) const;
  // That of the first `length` positions.
  FrozenRecurrence Leading(int64_t length) const;
};

// [B, L, H, P] contiguous from values [B, L, H, P]. Differentiable in every
// tensor. Memory: no state is kept, the backward pass recomputes them.
at::Tensor StateScan(const FrozenRecurrence& recurrence,
                     const at::Tensor& value);

// Matrices of heads of a recurrence with B = 1, into out [heads, rows, L].
void StateAttention(const FrozenRecurrence& recurrence, int64_t head_begin,
                    int64_t row_begin, at::Tensor& out);

// Entries of channels, into out [channels, rows, L], from `heads` [heads, rows,
// L], whose first one is head_begin. `skip` is [D] or undefined.
void ExpandHeads(const at::Tensor& heads, int64_t head_begin,
                 int64_t channels_per_head, const at::Tensor& skip,
                 const FrozenFactors& factors, int64_t channel_begin,
                 int64_t row_begin, at::Tensor& out);

// accumulator[...] = fold over the slab's first dimension. `weight` [channels]
// or undefined.
void FoldChannels(kernels::ChannelFold fold, const at::Tensor& slab,
                  const at::Tensor& weight, at::Tensor& accumulator);

// What a block's attention is folded into, see kernels::SsmAttentionFold.
struct AttentionFold {
  kernels::ChannelFold fold = kernels::ChannelFold::kSum;
  at::Tensor weight;   // [D] or undefined
  at::Tensor matrix;   // [L, L] contiguous, continued
  at::Tensor value;    // [L, D], with product, or neither
  at::Tensor product;  // [L, D] contiguous, set
};

// What a fold gives of no channels.
double EmptyFold(kernels::ChannelFold fold);

// All rows of the implicit attention by a kernel that makes no slabs, where
// there is one for this device, element type and sizes; false: there is none,
// and nothing was done.
bool FoldSsmAttention(const FrozenSsm& ssm, const FrozenFactors& factors,
                      const AttentionFold& fold);
// The same for a recurrence (B = 1) whose heads have one state and one channel.
bool FoldScalarAttention(const FrozenRecurrence& recurrence,
                         const FrozenFactors& factors,
                         const AttentionFold& fold);
// Bytes that either holds on a GPU meanwhile, for D channels and L positions.
int64_t FoldScratchBytes(int64_t num_channels, int64_t length);

// y [B, L, D] of u, delta [B, L, D] and b, c [B, L, N], differentiable in these
// four; a [D, N] and skip [D] are constants. Memory: no state is kept, the
// backward pass recomputes them.
at::Tensor SelectiveScan(const at::Tensor& u, const at::Tensor& delta,
                         const at::Tensor& b, const at::Tensor& c,
                         const at::Tensor& a, const at::Tensor& skip);

}  // namespace limpid
