// SPDX-License-Identifier: Apache-2.0
#include "server/models/residual_network.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "server/models/kernel_ops.h"
#include "server/models/layers.h"
#include "server/models/slabs.h"

namespace limpid {
namespace {

Arithmetic ArithmeticOf(Precision precision, const ResidualParts& parts) {
  Arithmetic arithmetic;
  const at::ScalarType stored = parts.stored_type;
  if (precision == Precision::kCheckpoint &&
      (stored == at::kHalf || stored == at::kBFloat16)) {
    arithmetic.input_type = stored;
  }
  // Of what is rounded the weights are as short, and exact in TF32.
  arithmetic.tf32 = parts.options.device.is_cuda() &&
                    (precision == Precision::kFast || arithmetic.input_type);
  return arithmetic;
}

std::string OperandsOf(const Arithmetic& arithmetic) {
  if (arithmetic.input_type == at::kHalf) return "float16";
  if (arithmetic.input_type == at::kBFloat16) return "bfloat16";
  return arithmetic.tf32 ? "tf32" : "float32";
}

class ResidualNetwork final : public Network {
 public:
  // As it is loaded: in float32, with what it is in the other precisions.
  explicit ResidualNetwork(std::shared_ptr<const ResidualParts> parts)
      : ResidualNetwork(parts, Precision::kFloat32, this) {
    for (const Precision precision :
         {Precision::kCheckpoint, Precision::kFast}) {
      others_[precision].reset(new ResidualNetwork(parts, precision, this));
    }
  }

  const ModelInfo& info() const override { return parts_->info; }
  at::Device device() const override { return parts_->options.device; }
  at::ScalarType dtype() const override { return parts_->options.dtype; }
  const Network& In(Precision precision) const override {
    const auto other = loaded_->others_.find(precision);
    return other == loaded_->others_.end() ? *loaded_ : *other->second;
  }

  at::Tensor Embed(const NetworkInput& input) const override {
    return parts_->embed(input);
  }
  at::Tensor MeanEmbedding() const override { return parts_->mean_embedding; }

  absl::StatusOr<at::Tensor> Forward(const at::Tensor& embeddings,
                                     const std::vector<int64_t>& positions,
                                     const LayerVisitor& visitor,
                                     const CancelToken& cancel) const override {
    const c10::InferenceMode guard;
    return Run(embeddings, positions, Differentiation::kNone, visitor, cancel);
  }
  absl::StatusOr<std::vector<at::Tensor>> ForwardSequences(
      const at::Tensor& embeddings, const Sequences& sequences,
      const LayerVisitor& visitor, const CancelToken& cancel) const override;
  absl::StatusOr<at::Tensor> ForwardDifferentiable(
      const at::Tensor& embeddings, const std::vector<int64_t>& positions,
      Differentiation differentiation, std::vector<at::Tensor>* block_outputs,
      const CancelToken& cancel) const override {
    const c10::AutoGradMode guard(true);
    return Run(embeddings, positions, differentiation, LayerVisitor(), cancel,
               /*tape=*/nullptr, block_outputs);
  }
  absl::Status VisitBackwards(const at::Tensor& embeddings,
                              const LayerVisitor& visitor,
                              const CancelToken& cancel) const override;
  absl::StatusOr<at::Tensor> ForwardFrozen(
      const at::Tensor& frozen_at, const at::Tensor& embeddings,
      const std::vector<int64_t>& positions,
      const CancelToken& cancel) const override {
    const c10::InferenceMode guard;
    FactorTape tape;
    const auto run = [&](const at::Tensor& input) {
      return Run(input, positions, Differentiation::kNone, LayerVisitor(),
                 cancel, &tape);
    };
    LIMPID_RETURN_IF_ERROR(run(frozen_at).status());
    tape.replay = true;
    return run(embeddings);
  }
  at::Tensor Logits(const at::Tensor& scores) const override {
    const double cap = parts_->soft_cap;
    return cap > 0 ? at::tanh(scores / cap) * cap : scores;
  }

  int64_t ForwardBytes(int64_t batch, int64_t length) const override;
  int64_t GradientBytes(int64_t batch, int64_t length) const override;
  int64_t VisitBytes(int64_t length) const override;
  double ForwardFlops(int64_t length) const override;
  double AttentionFlops(int64_t length, int64_t rows) const override;

 private:
  ResidualNetwork(std::shared_ptr<const ResidualParts> parts,
                  Precision precision, const ResidualNetwork* loaded)
      : parts_(std::move(parts)),
        arithmetic_(ArithmeticOf(precision, *parts_)),
        loaded_(loaded) {}

  absl::StatusOr<at::Tensor> Run(
      const at::Tensor& embeddings, const std::vector<int64_t>& positions,
      Differentiation differentiation, const LayerVisitor& visitor,
      const CancelToken& cancel, FactorTape* tape = nullptr,
      std::vector<at::Tensor>* block_outputs = nullptr) const {
    Pass pass(arithmetic_, differentiation, visitor, cancel, tape,
              block_outputs);
    LIMPID_ASSIGN_OR_RETURN(const at::Tensor stream,
                            RunLayers(embeddings, pass));
    return parts_->head(TakePositions(stream, positions), pass);
  }
  // The stream before the first layer, [B, L, E].
  at::Tensor Enter(const at::Tensor& embeddings, const Pass& pass) const {
    return parts_->enter ? parts_->enter(embeddings, pass) : embeddings;
  }
  // The stream after a layer, on that layer's device.
  absl::StatusOr<at::Tensor> RunLayer(size_t index, const at::Tensor& stream,
                                      Pass& pass) const {
    const auto layer = static_cast<int64_t>(index);
    LIMPID_RETURN_IF_ERROR(pass.BeginLayer(layer));
    const at::Device device = parts_->options.DeviceOf(layer);
    pass.packing.MoveTo(device);
    if (pass.first_values.defined()) {
      pass.first_values = pass.first_values.to(device);
    }
    return parts_->layers[index]->Run(stream.to(device), pass);
  }
  // The stream after the last layer, [B, L, E].
  absl::StatusOr<at::Tensor> RunLayers(const at::Tensor& embeddings,
                                       Pass& pass) const {
    at::Tensor stream = Enter(embeddings, pass);
    for (size_t index = 0; index < parts_->layers.size(); ++index) {
      LIMPID_ASSIGN_OR_RETURN(stream, RunLayer(index, stream, pass));
    }
    LIMPID_RETURN_IF_ERROR(pass.status());
    return stream.to(device());
  }
  int64_t ElementBytes() const {
    return static_cast<int64_t>(at::elementSize(parts_->options.dtype));
  }
  // Numbers of one position's stream and scores.
  int64_t StreamFloats(int64_t length) const {
    return length * parts_->info.hidden_size;
  }

  // Numbers of the copies of an input while it is rounded.
  int64_t RoundingFloats(int64_t length, int64_t copies) const {
    return arithmetic_.input_type ? copies * length * parts_->most_inputs : 0;
  }

  const std::shared_ptr<const ResidualParts> parts_;
  const Arithmetic arithmetic_;
  const ResidualNetwork* const loaded_;
  std::map<Precision, std::unique_ptr<const ResidualNetwork>> others_;
};

absl::StatusOr<std::vector<at::Tensor>> ResidualNetwork::ForwardSequences(
    const at::Tensor& embeddings, const Sequences& sequences,
    const LayerVisitor& visitor, const CancelToken& cancel) const {
  const c10::InferenceMode guard;
  Pass pass(arithmetic_, Differentiation::kNone, visitor, cancel,
            /*tape=*/nullptr, /*block_outputs=*/nullptr, sequences.alike);
  pass.packing = sequences.packing;
  LIMPID_ASSIGN_OR_RETURN(const at::Tensor stream, RunLayers(embeddings, pass));
  // Only the rows that are read go through the head, all of them at once.
  std::vector<int64_t> rows, counts;
  for (const std::vector<int64_t>& positions : sequences.positions) {
    const int64_t begin =
        pass.packing.BeginOf(stream, static_cast<int64_t>(counts.size()));
    for (const int64_t position : positions) rows.push_back(begin + position);
    counts.push_back(static_cast<int64_t>(positions.size()));
  }
  const at::Tensor read =
      TakePositions(stream.reshape({1, -1, stream.size(2)}), rows);
  return parts_->head(read, pass).squeeze(0).split_with_sizes(counts);
}

absl::Status ResidualNetwork::VisitBackwards(const at::Tensor& embeddings,
                                             const LayerVisitor& visitor,
                                             const CancelToken& cancel) const {
  const c10::AutoGradMode guard(false);
  const LayerVisitor nobody;
  Pass forward(arithmetic_, Differentiation::kNone, nobody, cancel);
  std::vector<at::Tensor> streams = {Enter(embeddings, forward)};
  for (size_t index = 0; index < parts_->layers.size(); ++index) {
    LIMPID_ASSIGN_OR_RETURN(at::Tensor next,
                            RunLayer(index, streams.back(), forward));
    streams.push_back(std::move(next));
  }
  Pass visiting(arithmetic_, Differentiation::kNone, visitor, cancel);
  visiting.first_values = forward.first_values;
  for (size_t index = parts_->layers.size(); index-- > 0;) {
    streams.pop_back();
    LIMPID_RETURN_IF_ERROR(RunLayer(index, streams.back(), visiting).status());
  }
  return visiting.status();
}

int64_t ResidualNetwork::ForwardBytes(int64_t batch, int64_t length) const {
  int64_t layer_floats = 0;
  for (const auto& layer : parts_->layers) {
    layer_floats = std::max(layer_floats, layer->Cost(length).forward);
  }
  // The embeddings, the stream before and after a layer, and the head.
  return batch * ElementBytes() *
         (3 * StreamFloats(length) + layer_floats +
          RoundingFloats(length, /*copies=*/2) +
          3 * parts_->info.vocabulary_size + 4 * parts_->info.hidden_size);
}

int64_t ResidualNetwork::GradientBytes(int64_t batch, int64_t length) const {
  int64_t kept = 0, working = 0;
  for (const auto& layer : parts_->layers) {
    const LayerCost cost = layer->Cost(length);
    kept += cost.gradient + StreamFloats(length);
    working = std::max(working, std::max(cost.backward, cost.forward));
  }
  return batch * ElementBytes() *
         (kept + working + 8 * StreamFloats(length) +
          RoundingFloats(length, /*copies=*/4) +
          6 * parts_->info.vocabulary_size + 8 * parts_->info.hidden_size);
}

int64_t ResidualNetwork::VisitBytes(int64_t length) const {
  int64_t most = 0;
  for (const auto& layer : parts_->layers) {
    const SlabShape slab =
        ChooseSlab(layer->num_channels(), length, length, ElementBytes(),
                   parts_->options.device.is_cpu());
    // Two slabs, if directions are added up, and the matrices of the heads
    // that a slab's channels belong to.
    const int64_t heads = slab.channels / layer->channels_per_head() + 2;
    const int64_t entries = (2 * slab.channels + heads) * slab.rows * length;
    most = std::max(most, entries + layer->Cost(length).map);
  }
  int64_t fold_bytes = 0, next_layer = 0;
  if (parts_->options.device.is_cuda()) {
    // What is looked at is kept while the next layer is computed.
    for (const auto& layer : parts_->layers) {
      next_layer = std::max(next_layer, layer->Cost(length).forward);
    }
    // A sequence takes no more of a fold of several than of one by itself. The
    // directions of a block that has two are folded side by side.
    fold_bytes = FoldScratchBytes(parts_->info.num_channels, length);
    for (const auto& layer : parts_->layers) {
      const int64_t channels = layer->num_channels();
      const int64_t heads = channels / layer->channels_per_head();
      if (heads == channels) continue;  // none shares a matrix
      fold_bytes =
          std::max(fold_bytes, HeadRowsOnGpu(heads, channels, length).bytes);
    }
    if (!parts_->info.causal) {
      fold_bytes = 2 * (fold_bytes + length * length * ElementBytes());
    }
  }
  return (most + next_layer) * ElementBytes() + fold_bytes;
}

double ResidualNetwork::ForwardFlops(int64_t length) const {
  double flops = 2.0 * parts_->info.hidden_size * parts_->info.vocabulary_size;
  for (const auto& layer : parts_->layers) flops += layer->Cost(length).flops;
  return flops;
}

double ResidualNetwork::AttentionFlops(int64_t length, int64_t rows) const {
  // Entries on and below the diagonal of the last `rows` rows; all of them
  // where matrices are full.
  const double entries = parts_->info.causal
                             ? rows * (length - 0.5 * (rows - 1))
                             : static_cast<double>(rows) * length;
  double flops = 0;
  for (const auto& layer : parts_->layers) {
    flops += layer->num_channels() * entries * layer->Cost(length).entry_flops;
  }
  return flops / parts_->layers.size();
}

}  // namespace

std::function<at::Tensor(const NetworkInput& input)> TokenEmbedding(
    const at::Tensor& table) {
  return [table](const NetworkInput& input) {
    return at::embedding(table, input.token_ids.to(table.device()));
  };
}

void ResidualParts::SetWeights(const WeightReader& reader) {
  options = reader.options();
  info.device = options.device.str();
  info.resident_bytes = reader.kept_bytes();
  info.layer_bytes = reader.layer_bytes();
  stored_type = reader.stored_type();
  most_inputs = reader.most_inputs();
}

std::unique_ptr<const Network> MakeResidualNetwork(ResidualParts parts) {
  ModelInfo& info = parts.info;
  info.num_layers = static_cast<int64_t>(parts.layers.size());
  for (const auto& layer : parts.layers) {
    info.layer_channels.push_back(layer->num_channels());
    info.layer_heads.push_back(layer->num_heads());
    info.num_channels = std::max(info.num_channels, layer->num_channels());
  }
  for (const Precision precision :
       {Precision::kFloat32, Precision::kCheckpoint, Precision::kFast}) {
    info.precisions[precision].operands =
        OperandsOf(ArithmeticOf(precision, parts));
  }
  return std::make_unique<ResidualNetwork>(
      std::make_shared<const ResidualParts>(std::move(parts)));
}

}  // namespace limpid
