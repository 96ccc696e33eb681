// SPDX-License-Identifier: Apache-2.0
//
// What a family of networks must be able to do so that everything else
// (reductions, methods, the engine) works for it. One pair of files per
// architecture implements it; see CMakeLists.txt here for the list.
//
// Shape letters: B batch, L positions, E width, D channels, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/checkpoint/hf_config.h"
#include "server/models/form.h"
#include "server/models/kernel_ops.h"
#include "server/models/model.h"
#include "server/models/packing.h"
#include "server/models/weights.h"

namespace limpid {

// The affine map of a form, per channel: output = alpha value + bias. All
// [L, D], compute dtype, on the network's device.
struct BlockMap {
  at::Tensor value;
  at::Tensor bias;
  at::Tensor output;
  // The part of `bias` that a position's own token brings (RWKV-7's bonus);
  // undefined: nothing.
  at::Tensor direct;
};

// What a block adds to the residual stream is weight output + bias.
struct OutputProjection {
  at::Tensor weight;  // [E, D]
  at::Tensor bias;    // [E] or undefined
};

// A block of attention matrices: entries of channels channel_begin ... and rows
// row_begin ... against every column.
struct AttentionSlab {
  int64_t channel_begin = 0;
  int64_t row_begin = 0;
  // [channels, rows, L] contiguous. Reused after the sink returns: whoever
  // needs it longer copies it.
  at::Tensor values;
};

// Receives slabs. A status that is not ok ends the visit.
class AttentionSink {
 public:
  virtual ~AttentionSink() = default;
  virtual absl::Status OnSlab(const AttentionSlab& slab) = 0;
};

// Rows [begin, end) of a matrix.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// A matrix [L, L] that the channels of a form are folded into.
struct MatrixFold {
  MatrixForm form;
  kernels::ChannelFold fold = kernels::ChannelFold::kSum;
  FoldFinish finish = FoldFinish::kNone;

  bool operator==(const MatrixFold&) const = default;
};

struct FoldedMatrix {
  at::Tensor matrix;  // [L, L]
  // The largest of all rows' errors (see RowErrors) of the form's map,
  // recomputed with these entries: one number.
  at::Tensor error;
};

// The implicit attention of one block at one input: every frozen factor from
// the same forward pass. Lives during LayerVisitor's call only.
class BlockAttention {
 public:
  virtual ~BlockAttention() = default;

  virtual int64_t num_positions() const = 0;
  virtual int64_t num_channels() const = 0;
  // Which tensors a form maps. `output` of the form full is the block's own
  // output (what enters its output projection), not a recomputation.
  virtual BlockMap Map(const MatrixForm& form) const = 0;
  virtual const OutputProjection& Projection() const = 0;
  // The residual stream that the block reads and adds to, [L, E].
  virtual const at::Tensor& Stream() const = 0;
  // alpha u and alpha^T u for u [L, D], without making the matrix. The second
  // one must not be called in inference mode.
  virtual at::Tensor Apply(const MatrixForm& form,
                           const at::Tensor& u) const = 0;
  virtual at::Tensor ApplyTransposed(const MatrixForm& form,
                                     const at::Tensor& u) const = 0;
  // Makes the rows of all channels, slab after slab; `cancel` is looked at
  // before each. Every entry is visited exactly once: blocks of rows one after
  // the other, and all channels of a block before the next.
  virtual absl::Status Visit(const MatrixForm& form, RowRange rows,
                             AttentionSink& sink,
                             const CancelToken& cancel) const = 0;
  // Folds the channels of all rows without slabs, where a kernel does that for
  // this block and form; nothing: none does. The error is there if it
  // `measures`. Cancelled, it may end early with anything.
  virtual std::optional<FoldedMatrix> Fold(const MatrixFold& fold,
                                           bool measures,
                                           const CancelToken& cancel) const {
    return std::nullopt;
  }
  // Folds a few rows of the form into fold.matrix [rows, L], which is
  // continued; value and product are not looked at. False: no kernel does that.
  // Unless it is null, `errors` is set to how far the block's map, recomputed
  // with these entries, is from its output ([rows], see RowErrors).
  virtual bool FoldRows(const MatrixForm& form, RowRange rows,
                        const AttentionFold& fold, at::Tensor* errors) const {
    return false;
  }
};

// Called for each layer of a forward pass, first to last, with the attention of
// one sequence of the batch.
using LayerVisitor = std::function<absl::Status(
    int64_t layer, int64_t sequence, const BlockAttention& attention)>;

// Input of a network, on the CPU: token ids [B, L] int64, or [1, T] of packed
// sequences, or pixels [B, 3, H, W] of the compute dtype.
struct NetworkInput {
  at::Tensor token_ids;
  at::Tensor pixels;
};

// The sequences of a batch. Networks that are not causal take equally long ones
// only.
struct Sequences {
  Packing packing;
  // Where the scores of each are read, one position or more.
  std::vector<std::vector<int64_t>> positions;
  // Whether the visitor folds the same of all of them: what the first one folds
  // is then folded of all at once, which is lost if nobody asks for it.
  bool alike = false;
};

// How gradients flow through a network.
enum class Differentiation {
  kNone,    // not at all: kernels alone
  kFull,    // through everything
  kFrozen,  // as if every factor that depends on the data were a constant: the
            // scores are then affine in the embeddings
};

// A loaded network. Immutable and thread-safe. Torch's exceptions may leave
// these functions; the engine catches them (models/torch_seam.h).
class Network {
 public:
  virtual ~Network() = default;

  // Everything but name, digest and has_tokenizer.
  virtual const ModelInfo& info() const = 0;
  virtual at::Device device() const = 0;
  virtual at::ScalarType dtype() const = 0;
  // The same weights in another precision, which lives as long as this. What is
  // loaded is float32.
  virtual const Network& In(Precision precision) const = 0;

  // e of the formulas: the sequence that enters the first block, [B, L, E], or
  // [1, T, E] of packed ones.
  virtual at::Tensor Embed(const NetworkInput& input) const = 0;
  // Mean of e over the vocabulary, [E]; undefined for pictures.
  virtual at::Tensor MeanEmbedding() const = 0;

  // The fast path. Scores [B, P, V] at `positions` (the same for all sequences;
  // empty: every position): logits, before a soft cap where the network has
  // one. `visitor` may be empty; it should fold the same of all sequences, as
  // those of Sequences that are alike.
  virtual absl::StatusOr<at::Tensor> Forward(
      const at::Tensor& embeddings, const std::vector<int64_t>& positions,
      const LayerVisitor& visitor, const CancelToken& cancel) const = 0;

  // The same for sequences that may differ in length and positions: scores
  // [P, V] of each. `visitor` sees every sequence as if it were alone.
  virtual absl::StatusOr<std::vector<at::Tensor>> ForwardSequences(
      const at::Tensor& embeddings, const Sequences& sequences,
      const LayerVisitor& visitor, const CancelToken& cancel) const = 0;

  // Shows the layers last to first, for what is carried from the last one
  // down: a forward pass, and each layer once more. Keeps the stream before
  // every layer, [layers, B, L, E]. Not in inference mode.
  virtual absl::Status VisitBackwards(const at::Tensor& embeddings,
                                      const LayerVisitor& visitor,
                                      const CancelToken& cancel) const = 0;

  // The same scores with gradients to `embeddings`, which methods explain, and
  // to what each block adds to the stream: with `block_outputs`, those tensors
  // [B, L, E] are put there, first layer first.
  virtual absl::StatusOr<at::Tensor> ForwardDifferentiable(
      const at::Tensor& embeddings, const std::vector<int64_t>& positions,
      Differentiation differentiation, std::vector<at::Tensor>* block_outputs,
      const CancelToken& cancel) const = 0;

  // Scores at `embeddings` of the network frozen at `frozen_at`: every factor
  // that depends on the data is the one of that other run. Affine in
  // `embeddings`.
  virtual absl::StatusOr<at::Tensor> ForwardFrozen(
      const at::Tensor& frozen_at, const at::Tensor& embeddings,
      const std::vector<int64_t>& positions,
      const CancelToken& cancel) const = 0;

  // What the network answers: its scores after the soft cap.
  virtual at::Tensor Logits(const at::Tensor& scores) const = 0;

  // Upper bounds for B sequences of L positions, beside the weights.
  virtual int64_t ForwardBytes(int64_t batch, int64_t length) const = 0;
  virtual int64_t GradientBytes(int64_t batch, int64_t length) const = 0;
  // Bytes held while a layer is visited, beside the forward pass; what sinks
  // keep is theirs to count.
  virtual int64_t VisitBytes(int64_t length) const = 0;
  // Estimates: one forward pass; one layer's `rows` rows of attention.
  virtual double ForwardFlops(int64_t length) const = 0;
  virtual double AttentionFlops(int64_t length, int64_t rows) const = 0;
};

// An architecture as the list knows it.
struct ArchitectureSpec {
  // Id, for example "mamba".
  std::string id;
  // Values of config.json's model_type that it reads.
  std::vector<std::string> model_types;
  // There is nobody else's output to compare with.
  bool experimental = false;
  // Configurations as small as they can be that between them use every option,
  // for the tests that run for every architecture.
  std::vector<std::string> tiny_configs;
  // Wrong fields: DATA_LOSS, CONFIG_INVALID; wrong tensors: the reader's
  // status.
  std::function<absl::StatusOr<std::unique_ptr<const Network>>(
      HfConfig& config, WeightReader& weights)>
      build;
};

// Every architecture that is built in (LIMPID_ARCHITECTURES).
const std::vector<ArchitectureSpec>& ListedArchitectures();

}  // namespace limpid
