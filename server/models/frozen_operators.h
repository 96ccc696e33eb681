// SPDX-License-Identifier: Apache-2.0
//
// What moves information between positions in a block, frozen at one input of
// one sequence: per channel c a matrix R_c [L, L], and a skip connection. Each
// kind applies it without ever making the matrix, and makes entries of it. One
// that was made with all sequences of a batch is for Sequences; only that of S6
// does everything else, too, if they are equally long: what it is given to
// apply and to fold then has B in front.
//
// Used by one thread: entries of heads are remembered between calls.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "server/models/kernel_ops.h"
#include "server/models/packing.h"

namespace limpid {

class FrozenOperator {
 public:
  virtual ~FrozenOperator() = default;
  // (R_c + skip_c I) u_c for u [L, D]. Differentiable in u.
  virtual at::Tensor Apply(const at::Tensor& u, bool include_skip) const = 0;
  // The same, added to `sum`, whose memory it may take; undefined: nothing. Of
  // an operator that reads backwards, which `reversed` says, u is in its own
  // time, and what comes out is in the sequence's.
  virtual at::Tensor AddApplied(const at::Tensor& sum, const at::Tensor& u,
                                bool include_skip, bool reversed) const;
  // diag(row_scale) (R_c + skip_c I) diag(source_scale) M_c, for the channels
  // from channel_begin on and the rows from row_begin on that `out` [channels,
  // rows, L] has room for.
  virtual void Entries(const FrozenFactors& factors, bool include_skip,
                       int64_t channel_begin, int64_t row_begin,
                       at::Tensor& out) const = 0;
  // Such entries of all channels and rows, folded without slabs; false: not for
  // this operator, and nothing was done.
  virtual bool Fold(const FrozenFactors& factors, bool include_skip,
                    const AttentionFold& fold) const {
    return false;
  }
  // Whether products of Fold and FoldWith have what the convolution's bias
  // gives.
  virtual bool folds_conv_bias() const { return false; }
  // A few rows of them as FoldSsmRows does it, or false.
  virtual bool FoldRows(const FrozenFactors& factors, int64_t row_begin,
                        const AttentionFold& fold) const {
    return false;
  }
  // Fold of a block whose other direction `back` is, see FoldBothDirections.
  virtual bool FoldWith(const FrozenOperator& back,
                        const FrozenFactors& factors,
                        const FrozenFactors& back_factors, bool include_skip,
                        const AttentionFold& fold) const {
    return false;
  }
  // Whether Fold takes all sequences of a batch at once.
  virtual bool FoldsBatches() const { return false; }
  // The operator of one sequence alone, or of several, see Packing.
  virtual std::unique_ptr<const FrozenOperator> Sequences(
      const Packing& packing, int64_t first, int64_t count) const = 0;
};

// The S6 recurrence of Mamba-1.
std::unique_ptr<const FrozenOperator> MakeS6Operator(FrozenSsm ssm);

// A recurrence with a matrix state per head, whose matrix all channels of a
// head share. `skip` [D] or undefined.
std::unique_ptr<const FrozenOperator> MakeRecurrenceOperator(
    FrozenRecurrence recurrence, int64_t channels_per_head, at::Tensor skip);

// Softmax attention: probabilities [H, L, L] of each sequence.
std::unique_ptr<const FrozenOperator> MakeSoftmaxOperator(
    std::vector<at::Tensor> probabilities, int64_t channels_per_head);

}  // namespace limpid
