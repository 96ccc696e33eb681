// SPDX-License-Identifier: Apache-2.0
//
// The kernels as functions on tensors: dispatch by device and dtype, threads on
// the CPU, the current stream on a GPU, and scans as differentiable
// operations.
#pragma once

#include <ATen/core/Tensor.h>

#include "server/base/clock.h"
#include "server/kernels/ops.h"
#include "server/models/packing.h"

namespace limpid {

// An S6 recurrence frozen at one input; see kernels::SelectiveSsm. Innermost
// dimensions are contiguous; positions may be strided. As FrozenFactors and
// AttentionFold it may be that of all sequences of a batch: the tensors that
// have positions then have B in front.
struct FrozenSsm {
  at::Tensor delta;  // [L, D]
  at::Tensor a;      // [D, N]
  at::Tensor b;      // [L, N]
  at::Tensor c;      // [L, N]
  at::Tensor skip;   // [D] or undefined

  // That of one sequence.
  FrozenSsm Sequence(int64_t index) const;
};

// Factors around the recurrence; undefined: identity.
struct FrozenFactors {
  at::Tensor source_scale;  // [L, D]
  at::Tensor conv_weight;   // [D, K]
  at::Tensor row_scale;     // [L, D]
  // [D] or undefined: of no matrix, but of what products may get as well.
  at::Tensor conv_bias;

  FrozenFactors Sequence(int64_t index) const;
};

// As u [L, D], or [B, L, D]; contiguous.
at::Tensor SelectiveScan(const FrozenSsm& ssm, const at::Tensor& u);

// What a causal convolution gives; [B, L, D] contiguous.
struct Convolved {
  at::Tensor conv;       // with bias
  at::Tensor ratio;      // sigmoid(conv)
  at::Tensor activated;  // silu(conv)
};
// [B, L, D] contiguous from x [B, L, D] with strided rows, weight [D, K], bias
// [D] or undefined.
at::Tensor CausalConv1d(const at::Tensor& x, const at::Tensor& weight,
                        const at::Tensor& bias, const Packing& packing);
// The same with the activation, of sequences read from right to left if
// `reversed`: position 0 of what it gives is the last of x. Only what is
// activated unless `keeps_factors`.
Convolved ConvolveAndActivate(const at::Tensor& x, const at::Tensor& weight,
                              const at::Tensor& bias, bool reversed,
                              bool keeps_factors, const Packing& packing);

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

  // That of equally long neighbours, see Packing.
  FrozenRecurrence Sequences(const Packing& packing, int64_t first,
                             int64_t count) const;
};

// [B, L, H, P] contiguous from values [B, L, H, P]. Differentiable in every
// tensor unless they are packed. Memory: no state is kept, the backward pass
// recomputes them.
at::Tensor StateScan(const FrozenRecurrence& recurrence,
                     const at::Tensor& value, const Packing& packing);

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
  // Looked at between parts; if it says so the rest is left out. May be null.
  const CancelToken* cancel = nullptr;

  AttentionFold Sequence(int64_t index) const;
};

// What a fold gives of no channels.
double EmptyFold(kernels::ChannelFold fold);

// What is made of a fold of D channels in the end.
enum class FoldFinish {
  kNone,
  kMean,          // x / D
  kPositiveMean,  // max(x / D, 0)
  kRootMean,      // sqrt(x / D)
};
// In place.
void FinishFold(FoldFinish finish, int64_t num_channels, at::Tensor& matrix);
// Weights [D] of kWeightedSumAbs: the norms of the columns of an output
// projection [E, D], as parts of their sum.
at::Tensor ChannelWeights(const at::Tensor& projection);

// All rows of the implicit attention by a kernel that makes no slabs, where
// there is one for this device, element type and sizes; false: there is none,
// and nothing was done. On a GPU products get what the convolution's bias gives
// as well.
bool FoldSsmAttention(const FrozenSsm& ssm, const FrozenFactors& factors,
                      const AttentionFold& fold);
// The same for a block of two directions. `back` and its factors are in its own
// time, but for the row scale, which is in the sequence's, as the fold is. What
// fold.matrix holds is lost.
bool FoldBothDirections(const FrozenSsm& ahead,
                        const FrozenFactors& ahead_factors,
                        const FrozenSsm& back,
                        const FrozenFactors& back_factors,
                        const AttentionFold& fold);
// The same for a recurrence (B = 1) whose heads have one state and one channel.
bool FoldScalarAttention(const FrozenRecurrence& recurrence,
                         const FrozenFactors& factors,
                         const AttentionFold& fold);
// The same of channels that share the matrices of heads, which are lower
// triangular, for as many rows from row_begin on as `heads` [H, rows, L],
// fold.matrix [rows, L] and fold.product [rows, D] have; on GPUs. `skip` is [D]
// or undefined.
bool FoldHeads(const at::Tensor& heads, int64_t channels_per_head,
               const at::Tensor& skip, const FrozenFactors& factors,
               int64_t row_begin, const AttentionFold& fold);
// A few rows (kernels::kMaxFoldedRows) of the implicit attention, from
// row_begin on as many as fold.matrix [rows, L] has; fold.product [rows, D]
// gets what the convolution's bias gives as well, see kernels::SsmRowsFold.
// False: no kernel takes these sizes.
bool FoldSsmRows(const FrozenSsm& ssm, const FrozenFactors& factors,
                 int64_t row_begin, const AttentionFold& fold);
// [..., rows] from product, output [..., rows, D] and bias like them or
// undefined, see kernels::RowErrors.
at::Tensor RowErrors(const at::Tensor& product, const at::Tensor& bias,
                     const at::Tensor& output);
// Bytes that either holds on a GPU meanwhile, for D channels and L positions.
int64_t FoldScratchBytes(int64_t num_channels, int64_t length);

// y [B, L, D] of u, delta [B, L, D] and b, c [B, L, N], differentiable in these
// four; a [D, N] and skip [D] are constants. Memory: no state is kept, the
// backward pass recomputes them.
at::Tensor SelectiveScan(const at::Tensor& u, const at::Tensor& delta,
                         const at::Tensor& b, const at::Tensor& c,
                         const at::Tensor& a, const at::Tensor& skip);

// What the kernel of a scan does after it, see kernels::SelectiveScan.
// Undefined tensors are left out.
struct AfterScan {
  bool reversed = false;
  at::Tensor added;       // [B, L, D] contiguous: becomes the output
  at::Tensor gate_input;  // [B, L, D] with strided rows
  double scale = 1;
};
struct Scanned {
  at::Tensor y;     // [B, L, D] contiguous
  at::Tensor gate;  // silu(gate_input), if it is to be kept
};
// Without gradients.
Scanned SelectiveScan(const at::Tensor& u, const at::Tensor& delta,
                      const at::Tensor& b, const at::Tensor& c,
                      const at::Tensor& a, const at::Tensor& skip,
                      const AfterScan& after, bool keeps_gate,
                      const Packing& packing);

// RWKV-4's averages [B, L, D] of values by keys, gated, and the recurrence that
// they are, see kernels::Wkv. Without gradients.
struct WkvRun {
  at::Tensor output;
  FrozenRecurrence recurrence;  // as all that follow, if they are to be kept
  at::Tensor gate;
};
WkvRun RunWkv(const at::Tensor& key, const at::Tensor& value,
              const at::Tensor& gate_input, const at::Tensor& decay,
              const at::Tensor& bonus, bool keeps_factors,
              const Packing& packing);

}  // namespace limpid
