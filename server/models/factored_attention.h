// SPDX-License-Identifier: Apache-2.0
//
// The implicit attention of every block that is made of the factors of the
// unified form (arXiv:2405.16504; the left-most one acts last):
//   alpha = Gamma W kappa sum_b [ (R_b + skip_b I) Sigma_b M_b ]
// Gamma the gate, W the frozen normaliser, kappa a constant, and per direction
// b the recurrence R, its skip, the ratio Sigma of the activation to its
// argument, and the convolution M. Which of them exist depends on the
// architecture; one that does not is the identity.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "server/models/architecture.h"
#include "server/models/frozen_operators.h"
#include "server/models/pass.h"

namespace limpid {

// One direction of a block. A reversed one has all its tensors in its own time:
// its position 0 is the last of the sequence.
struct DirectionTrace {
  std::unique_ptr<const FrozenOperator> recurrence;
  at::Tensor conv_weight;  // [D, K] or undefined: no convolution
  at::Tensor conv_bias;    // [D] or undefined
  at::Tensor conv;         // [L, D]: what leaves the convolution, with bias
  at::Tensor ratio;        // [L, D]: Sigma; undefined: no activation
  bool reversed = false;
};

// Everything of one forward pass of one sequence that the block's matrix is
// made of. [L, D] each, undefined where the block has none. That of a batch has
// all sequences: what has positions is then [B, L, D], or [1, T, D] of packed
// ones.
struct BlockTrace {
  std::vector<DirectionTrace> directions;  // one or two
  // What the whole block maps.
  at::Tensor x;
  // What the recurrence alone maps where that is not made of x by convolution
  // and activation: RWKV-5 to 7, whose x is centred for the normaliser.
  at::Tensor uncentred;
  double scale = 1;      // kappa
  at::Tensor norm;       // W
  at::Tensor norm_bias;  // [D]: what the normaliser adds
  at::Tensor direct;     // what goes past recurrence and normaliser
  at::Tensor gate;       // Gamma
  at::Tensor output;     // what enters the output projection
  OutputProjection projection;
  at::Tensor stream;  // [L, E]: what the block reads and adds to
};

class BlockBatch;

// Forms and what they map (h = activation of conv, u = uncentred or h):
//   full           alpha x + beta = output
//   state          R u = the recurrence's output
//   no-conv        Gamma W (R + skip I) Sigma conv = output
//   no-gate        W (R + skip I) Sigma M x + bias = output before the gate
//   no-activation  Gamma W (R + skip I) M x + bias = the block with the
//                  activation left out and everything else frozen
//   no-norm        Gamma (R + skip I) Sigma M x + bias, or u for x: the block
//                  with the normaliser left out and everything else frozen
//   upstream       Gamma W sum_b R_b Sigma_b M_b x: the block without skip,
//                  biases and kappa
// With include_skip changed from its default, output changes accordingly.
// Blocks of two directions have neither state nor no-conv: nothing that both
// map is in between.
class FactoredAttention final : public BlockAttention {
 public:
  explicit FactoredAttention(BlockTrace trace) : trace_(std::move(trace)) {}
  // One sequence of a batch, which must outlive it.
  FactoredAttention(const BlockBatch& batch, int64_t sequence)
      : batch_(&batch), sequence_(sequence) {}

  int64_t num_positions() const override { return whole().x.size(-2); }
  int64_t num_channels() const override { return whole().x.size(-1); }
  BlockMap Map(const MatrixForm& form) const override;
  const OutputProjection& Projection() const override {
    return whole().projection;
  }
  const at::Tensor& Stream() const override { return trace().stream; }
  at::Tensor Apply(const MatrixForm& form, const at::Tensor& u) const override;
  at::Tensor ApplyTransposed(const MatrixForm& form,
                             const at::Tensor& u) const override;
  absl::Status Visit(const MatrixForm& form, RowRange rows, AttentionSink& sink,
                     const CancelToken& cancel) const override;
  std::optional<FoldedMatrix> Fold(const MatrixFold& fold, bool measures,
                                   const CancelToken& cancel) const override;
  bool FoldRows(const MatrixForm& form, RowRange rows,
                const AttentionFold& fold, at::Tensor* errors) const override;

 private:
  friend class BlockBatch;

  // What this sequence has; made of the batch when it is first asked for, since
  // a fold does without.
  const BlockTrace& trace() const;
  // The same, or what it has with all others of the batch.
  const BlockTrace& whole() const;
  // What Map says of a form's value.
  at::Tensor ValueOf(AttentionForm form) const;
  // What the recurrence of a direction stands between; `row_scale` is taken as
  // it is.
  FrozenFactors Around(const DirectionTrace& direction, AttentionForm form,
                       const at::Tensor& row_scale) const;
  // Map with that, whose bias is undefined where there is none, and if asked
  // has nothing of the convolution's.
  BlockMap MapScaled(const MatrixForm& form, const at::Tensor& row_scale,
                     bool with_conv_bias) const;
  // [L, D]: what the form multiplies rows with; undefined: nothing.
  at::Tensor RowScale(AttentionForm form) const;

  const BlockBatch* batch_ = nullptr;
  int64_t sequence_ = 0;
  mutable std::optional<BlockTrace> trace_;
};

// Of a batch's trace that of `count` equally long neighbours: a batch, unless
// there is only one.
BlockTrace SequencesOf(const BlockTrace& all, const Packing& packing,
                       int64_t first, int64_t count = 1);

// Sequences of a layer's batch, of the same length, with an operator that folds
// batches. What one of them folds is folded of all at once and kept for the
// others, which are expected to ask for the same. Used by one thread.
class BlockBatch {
 public:
  // `trace` has B in front, and so has its operator.
  explicit BlockBatch(BlockTrace trace) : all_(std::move(trace)) {}

  const BlockTrace& all() const { return all_.trace(); }
  std::optional<FoldedMatrix> Fold(const MatrixFold& fold, bool measures,
                                   int64_t sequence,
                                   const CancelToken& cancel) const;

 private:
  struct Known {
    MatrixFold fold;
    FoldedMatrix folded;  // [B, L, L] and [B]
  };

  const FactoredAttention all_;
  mutable std::vector<Known> known_;
};

// Shows the attention of every sequence of the pass's current layer, whose
// trace this is. On a GPU large ones are looked at aside (Pass::aside), and the
// trace is kept meanwhile.
void VisitBlocks(Pass& pass, BlockTrace trace);

}  // namespace limpid
