// SPDX-License-Identifier: Apache-2.0
//
// One run through a network's layers: how it is differentiated, who looks at
// the blocks on the way, and what layers leave for later ones.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <cstddef>
#include <optional>
#include <vector>

#include "server/models/architecture.h"
#include "server/models/packing.h"
#include "server/models/side_by_side.h"

namespace limpid {

// How the products of projections are computed.
struct Arithmetic {
  // What their inputs are rounded to; nothing: they are not.
  std::optional<at::ScalarType> input_type;
  // Float32 operands count as TF32 on GPUs: what has 11 bits or fewer already
  // is multiplied exactly.
  bool tf32 = false;
};

// The factors of one run in the order in which they were asked for, so that
// another run can take them instead of its own.
struct FactorTape {
  std::vector<at::Tensor> factors;
  bool replay = false;
  size_t next = 0;
};

// Used by one thread, for one run.
class Pass {
 public:
  // What is given must outlive the pass; `visitor` may be empty, `tape` and
  // `block_outputs` null. Whether the visitor folds the same of all sequences,
  // `alike` tells, see Sequences.
  Pass(const Arithmetic& arithmetic, Differentiation differentiation,
       const LayerVisitor& visitor, const CancelToken& cancel,
       FactorTape* tape = nullptr,
       std::vector<at::Tensor>* block_outputs = nullptr, bool alike = true)
      : arithmetic_(arithmetic),
        frozen_(differentiation == Differentiation::kFrozen),
        visitor_(visitor),
        cancel_(cancel),
        tape_(tape),
        block_outputs_(block_outputs),
        alike_(alike) {}

  const Arithmetic& arithmetic() const { return arithmetic_; }

  // A number that depends on the data and that the implicit attention treats
  // as a constant: a gate, a step, a normaliser. In a frozen pass no gradient
  // flows through it. Layers ask for the same factors in the same order in
  // every run.
  at::Tensor Factor(const at::Tensor& tensor) const {
    if (tape_ != nullptr) {
      if (tape_->replay) return tape_->factors.at(tape_->next++);
      tape_->factors.push_back(tensor);
    }
    return frozen_ ? tensor.detach() : tensor;
  }

  // Whether nobody wants factors one by one, for gradients or for another run:
  // layers may then make them inside of kernels.
  bool fused() const {
    return tape_ == nullptr && !frozen_ && !c10::GradMode::is_enabled();
  }

  // What a layer's block adds to the stream, [B, L, E]; called once per layer.
  at::Tensor BlockOutput(const at::Tensor& output) const {
    if (block_outputs_ != nullptr) block_outputs_->push_back(output);
    return output;
  }

  // Whether attention is looked at, so that it pays to make it.
  bool visits() const { return visitor_ && status_.ok(); }
  bool alike() const { return alike_; }
  // Shows the attention of one sequence of the current layer. What the visitor
  // answers ends the run after this layer.
  void Visit(int64_t sequence, const BlockAttention& attention) {
    if (visits()) status_ = visitor_(layer_, sequence, attention);
  }

  // Where visits may take place while the pass goes on with the next layer.
  Aside& aside() { return aside_; }

  // To be called before each layer: whether to go on.
  absl::Status BeginLayer(int64_t layer) {
    layer_ = layer;
    return status_.ok() ? cancel_.Check() : status_;
  }
  absl::Status status() const { return status_; }
  int64_t layer() const { return layer_; }

  // How sequences lie in the stream, on the layer's device. They are packed in
  // fused passes only.
  Packing packing;
  // RWKV-7: values of the first layer, [B, L, D], which later ones mix in.
  at::Tensor first_values;

 private:
  const Arithmetic& arithmetic_;
  const bool frozen_;
  const LayerVisitor& visitor_;
  const CancelToken& cancel_;
  FactorTape* const tape_;
  std::vector<at::Tensor>* const block_outputs_;
  const bool alike_;
  int64_t layer_ = 0;
  absl::Status status_;
  Aside aside_{Aside::Span::kLayer};
};

}  // namespace limpid
