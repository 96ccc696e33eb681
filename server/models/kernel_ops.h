// SPDX-License-Identifier: Apache-2.0
//
// The kernels as functions on tensors: dispatch by device and dtype, threads on
// the CPU, the current stream on a GPU, and the scan as a differentiable
// operation.
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

// accumulator[...] = fold over the slab's first dimension. `weight` [channels]
// or undefined.
void FoldChannels(kernels::ChannelFold fold, const at::Tensor& slab,
                  const at::Tensor& weight, at::Tensor& accumulator);

// y [B, L, D] of u, delta [B, L, D] and b, c [B, L, N] with gradients to all
// four; a [D, N] and skip [D] are constants. Memory: no state is kept, the
// backward pass recomputes them.
at::Tensor DifferentiableScan(const at::Tensor& u, const at::Tensor& delta,
                              const at::Tensor& b, const at::Tensor& c,
                              const at::Tensor& a, const at::Tensor& skip);

}  // namespace limpid
