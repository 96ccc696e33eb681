// SPDX-License-Identifier: Apache-2.0
//
// The skeleton that all architectures share: an embedded sequence, layers that
// each add to a residual stream, and a head. An architecture brings the parts.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "server/models/architecture.h"
#include "server/models/pass.h"
#include "server/models/weights.h"

namespace limpid {

// What a layer costs for one sequence, as numbers of the compute dtype; see
// Network for what is an upper bound and what an estimate.
struct LayerCost {
  // Live at once while it runs, beside its input and output.
  int64_t forward = 0;
  // Kept for the backward pass.
  int64_t gradient = 0;
  // Live at once in its backward pass, beside what was kept.
  int64_t backward = 0;
  // Made by Map, beside the slabs.
  int64_t map = 0;
  double flops = 0;
  // Multiply-adds times two per entry of one channel's matrix.
  double entry_flops = 0;
};

// One layer of a network. Immutable and thread-safe.
class Layer {
 public:
  virtual ~Layer() = default;
  // The residual stream [B, L, E] after the layer. Differentiable.
  virtual at::Tensor Run(const at::Tensor& stream, Pass& pass) const = 0;
  // Channels of its mixer, and how many of them share a head's matrix.
  virtual int64_t num_channels() const = 0;
  virtual int64_t channels_per_head() const { return 1; }
  // Heads of the published network, the channels of each of which share the
  // matrix of the form state; 0: no heads.
  virtual int64_t num_heads() const { return 0; }
  virtual LayerCost Cost(int64_t length) const = 0;
};

struct ResidualParts {
  // What was read, once all of it was: options, and facts about the weights.
  void SetWeights(const WeightReader& reader);

  // Everything that the skeleton can't count itself.
  ModelInfo info;
  BuildOptions options;
  // In which most weights are stored, and the most inputs of a projection.
  at::ScalarType stored_type = at::kFloat;
  int64_t most_inputs = 0;
  // e of the formulas, [B, L, E].
  std::function<at::Tensor(const NetworkInput& input)> embed;
  at::Tensor mean_embedding;  // [E], undefined for pictures
  // From e to the stream of the first layer; empty: the same.
  std::function<at::Tensor(const at::Tensor& embeddings, const Pass& pass)>
      enter;
  std::vector<std::unique_ptr<const Layer>> layers;
  // From the stream at some positions, [B, P, E], to scores [B, P, V].
  std::function<at::Tensor(const at::Tensor& stream, const Pass& pass)> head;
  // Logits = cap tanh(scores / cap); 0: the same.
  double soft_cap = 0;
};

// Rows of `table` [V, E] for token ids.
std::function<at::Tensor(const NetworkInput& input)> TokenEmbedding(
    const at::Tensor& table);

std::unique_ptr<const Network> MakeResidualNetwork(ResidualParts parts);

}  // namespace limpid
