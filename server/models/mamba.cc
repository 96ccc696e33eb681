// SPDX-License-Identifier: Apache-2.0
#include "server/models/mamba.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/models/kernel_ops.h"
#include "server/models/layers.h"
#include "server/models/s6_attention.h"
#include "server/models/weights.h"

namespace limpid::architectures::mamba {
namespace {

// Sizes and switches of config.json. E hidden, D inner, N state, R rank, K
// convolution width, V vocabulary.
struct Config {
  int64_t vocabulary = 0;  // V
  int64_t hidden = 0;      // E
  int64_t inner = 0;       // D
  int64_t state = 0;       // N
  int64_t rank = 0;        // R
  int64_t conv_width = 0;  // K
  int64_t num_layers = 0;
  double epsilon = 0;
  bool projection_bias = false;
  bool conv_bias = false;
  bool tied_head = false;
};

struct Layer {
  at::Tensor norm;                         // [E]
  at::Tensor in_weight, in_bias;           // [2D, E], [2D] or undefined
  at::Tensor conv_weight, conv_bias;       // [D, K], [D] or undefined
  at::Tensor x_weight;                     // [R + 2N, D]
  at::Tensor step_weight, step_bias;       // [D, R], [D]
  at::Tensor a;                            // [D, N], negative
  at::Tensor skip;                         // [D]
  at::Tensor out_weight, out_bias;         // [E, D], [E] or undefined
  at::Tensor out_norms;                    // [D]
};

struct Weights {
  at::Tensor embeddings;  // [V, E]
  at::Tensor final_norm;  // [E]
  at::Tensor head;        // [V, E]
  std::vector<Layer> layers;
};

absl::StatusOr<Config> ReadConfig(HfConfig& file) {
  constexpr int64_t kMaxSize = int64_t{1} << 24;
  Config config;
  config.vocabulary = file.RequiredInt("vocab_size", 1, kMaxSize);
  config.hidden = file.RequiredInt("hidden_size", 1, kMaxSize);
  config.num_layers = file.RequiredInt("num_hidden_layers", 1, 4096);
  config.state = file.Int("state_size", 16, 1, kernels::kMaxStateSize);
  config.conv_width = file.Int("conv_kernel", 4, 1, kernels::kMaxConvWidth);
  const double expand = file.Double("expand", 2);
  if (!(expand > 0 && expand <= 64)) {
    file.AddError("expand", "must be above 0 and at most 64");
  } else {
    config.inner = static_cast<int64_t>(expand * config.hidden);
  }
  config.rank = (config.hidden + 15) / 16;
  if (!file.IsString("time_step_rank")) {
    config.rank = file.Int("time_step_rank", config.rank, 1, kMaxSize);
  } else if (file.String("time_step_rank", "auto") != "auto") {
    file.AddError("time_step_rank", "must be \"auto\" or an integer");
  }
  config.epsilon = file.Double("layer_norm_epsilon", 1e-5);
  if (!(config.epsilon >= 0)) {
    file.AddError("layer_norm_epsilon", "must not be negative");
  }
  config.projection_bias = file.Bool("use_bias", false);
  config.conv_bias = file.Bool("use_conv_bias", true);
  config.tied_head = file.Bool("tie_word_embeddings", true);
  const std::string activation = file.String("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    file.AddError("hidden_act", "must be \"silu\"");
  }
  LIMPID_RETURN_IF_ERROR(file.status());
  return config;
}

absl::StatusOr<Weights> ReadWeights(const Config& config,
                                    WeightReader& reader) {
  const int64_t inner = config.inner, hidden = config.hidden;
  Weights weights;
  weights.embeddings =
      reader.Take({"backbone.embeddings.weight", "backbone.embedding.weight"},
                  {config.vocabulary, hidden});
  weights.final_norm = reader.Take({"backbone.norm_f.weight"}, {hidden});
  weights.head = config.tied_head
                     ? weights.embeddings
                     : reader.Take({"lm_head.weight"},
                                   {config.vocabulary, hidden});
  for (int64_t index = 0; index < config.num_layers; ++index) {
    const std::string at_layer = absl::StrCat("backbone.layers.", index, ".");
    const std::string mixer = at_layer + "mixer.";
    Layer layer;
    layer.norm = reader.Take({at_layer + "norm.weight"}, {hidden});
    layer.in_weight =
        reader.Take({mixer + "in_proj.weight"}, {2 * inner, hidden});
    layer.in_bias = reader.TakeIf(config.projection_bias,
                                  {mixer + "in_proj.bias"}, {2 * inner});
    layer.conv_weight = reader.Take({mixer + "conv1d.weight"},
                                    {inner, 1, config.conv_width});
    layer.conv_bias =
        reader.TakeIf(config.conv_bias, {mixer + "conv1d.bias"}, {inner});
    layer.x_weight = reader.Take({mixer + "x_proj.weight"},
                                 {config.rank + 2 * config.state, inner});
    layer.step_weight =
        reader.Take({mixer + "dt_proj.weight"}, {inner, config.rank});
    layer.step_bias = reader.Take({mixer + "dt_proj.bias"}, {inner});
    layer.a = reader.Take({mixer + "A_log"}, {inner, config.state});
    layer.skip = reader.Take({mixer + "D"}, {inner});
    layer.out_weight = reader.Take({mixer + "out_proj.weight"}, {hidden, inner});
    layer.out_bias = reader.TakeIf(config.projection_bias,
                                   {mixer + "out_proj.bias"}, {hidden});
    weights.layers.push_back(std::move(layer));
  }
  LIMPID_RETURN_IF_ERROR(reader.status());
  for (Layer& layer : weights.layers) {
    layer.conv_weight = layer.conv_weight.squeeze(1).contiguous();
    layer.a = -layer.a.exp();
    layer.out_norms = layer.out_weight.norm(2, {0});
  }
  return weights;
}

int64_t ResidentBytes(const Weights& weights) {
  int64_t bytes = 0;
  const auto add = [&](const at::Tensor& tensor) {
    if (tensor.defined()) bytes += static_cast<int64_t>(tensor.nbytes());
  };
  add(weights.embeddings);
  add(weights.final_norm);
  if (!weights.head.is_same(weights.embeddings)) add(weights.head);
  for (const Layer& layer : weights.layers) {
    for (const at::Tensor& tensor :
         {layer.norm, layer.in_weight, layer.in_bias, layer.conv_weight,
          layer.conv_bias, layer.x_weight, layer.step_weight, layer.step_bias,
          layer.a, layer.skip, layer.out_weight, layer.out_bias,
          layer.out_norms}) {
      add(tensor);
    }
  }
  return bytes;
}

class Mamba final : public Network {
 public:
  Mamba(const Config& config, Weights weights, const BuildOptions& options)
      : config_(config), weights_(std::move(weights)), options_(options) {
    info_.architecture = "mamba";
    info_.device = options.device.str();
    info_.modality = Modality::kText;
    info_.causal = true;
    info_.num_layers = config.num_layers;
    info_.hidden_size = config.hidden;
    info_.num_channels = config.inner;
    info_.state_size = config.state;
    info_.vocabulary_size = config.vocabulary;
    info_.resident_bytes = ResidentBytes(weights_);
    info_.forms = {AttentionForm::kFull,         AttentionForm::kState,
                   AttentionForm::kNoConv,       AttentionForm::kNoGate,
                   AttentionForm::kNoActivation, AttentionForm::kUpstream};
  }

  const ModelInfo& info() const override { return info_; }
  at::Device device() const override { return options_.device; }
  at::ScalarType dtype() const override { return options_.dtype; }

  at::Tensor Embed(const NetworkInput& input) const override {
    return at::embedding(weights_.embeddings,
                         input.token_ids.to(options_.device));
  }
  at::Tensor EmbeddingTable() const override { return weights_.embeddings; }

  absl::StatusOr<at::Tensor> Forward(
      const at::Tensor& embeddings, const std::vector<int64_t>& positions,
      const LayerVisitor& visitor, const CancelToken& cancel) const override;
  absl::StatusOr<at::Tensor> ForwardDifferentiable(
      const at::Tensor& embeddings, const std::vector<int64_t>& positions,
      const CancelToken& cancel) const override;

  int64_t ForwardBytes(int64_t batch, int64_t length) const override;
  int64_t GradientBytes(int64_t batch, int64_t length) const override;
  int64_t VisitBytes(int64_t length) const override;
  double ForwardFlops(int64_t length) const override;
  double AttentionFlops(int64_t length, int64_t rows) const override;

 private:
  // The projections of a block, up to what the recurrence takes; x is the half
  // that is convolved, z the gate's.
  struct Projected {
    at::Tensor x, z;
  };
  Projected ProjectIn(const Layer& layer, const at::Tensor& stream) const {
    const at::Tensor both =
        at::linear(RmsNorm(stream, layer.norm, config_.epsilon),
                   layer.in_weight, OrNone(layer.in_bias));
    return {both.narrow(-1, 0, config_.inner),
            both.narrow(-1, config_.inner, config_.inner)};
  }
  struct Selected {
    at::Tensor delta, b, c;
  };
  Selected Select(const Layer& layer, const at::Tensor& activated) const {
    const at::Tensor all = at::linear(activated, layer.x_weight);
    return {at::softplus(at::linear(all.narrow(-1, 0, config_.rank),
                                    layer.step_weight, layer.step_bias)),
            all.narrow(-1, config_.rank, config_.state),
            all.narrow(-1, config_.rank + config_.state, config_.state)};
  }
  at::Tensor ProjectOut(const Layer& layer, const at::Tensor& y) const {
    return at::linear(y, layer.out_weight, OrNone(layer.out_bias));
  }
  at::Tensor Logits(const at::Tensor& stream,
                    const std::vector<int64_t>& positions) const {
    return at::linear(RmsNorm(TakePositions(stream, positions),
                              weights_.final_norm, config_.epsilon),
                      weights_.head);
  }
  static std::optional<at::Tensor> OrNone(const at::Tensor& tensor) {
    return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
  }

  const Config config_;
  const Weights weights_;
  const BuildOptions options_;
  ModelInfo info_;
};

absl::StatusOr<at::Tensor> Mamba::Forward(
    const at::Tensor& embeddings, const std::vector<int64_t>& positions,
    const LayerVisitor& visitor, const CancelToken& cancel) const {
  const c10::InferenceMode guard;
  at::Tensor stream = embeddings.clone();
  for (size_t index = 0; index < weights_.layers.size(); ++index) {
    LIMPID_RETURN_IF_ERROR(cancel.Check());
    const Layer& layer = weights_.layers[index];
    const Projected projected = ProjectIn(layer, stream);
    std::vector<at::Tensor> convs;
    for (int64_t i = 0; i < stream.size(0); ++i) {
      convs.push_back(CausalConv1d(projected.x[i], layer.conv_weight,
                                   layer.conv_bias));
    }
    const at::Tensor conv = at::stack(convs);
    const at::Tensor activated = at::silu(conv);
    const Selected selected = Select(layer, activated);
    const at::Tensor gate = at::silu(projected.z);
    std::vector<at::Tensor> outputs;
    for (int64_t i = 0; i < stream.size(0); ++i) {
      const FrozenSsm ssm{selected.delta[i], layer.a, selected.b[i],
                          selected.c[i], layer.skip};
      outputs.push_back(SelectiveScan(ssm, activated[i]).mul_(gate[i]));
      if (!visitor) continue;
      S6Trace trace;
      trace.ssm = ssm;
      trace.conv_weight = layer.conv_weight;
      trace.conv_bias = layer.conv_bias;
      trace.x = projected.x[i];
      trace.conv = conv[i];
      trace.gate = gate[i];
      trace.output = outputs.back();
      trace.output_norms = layer.out_norms;
      LIMPID_RETURN_IF_ERROR(visitor(static_cast<int64_t>(index), i,
                                     S6Attention(std::move(trace))));
    }
    stream.add_(ProjectOut(layer, at::stack(outputs)));
  }
  return Logits(stream, positions);
}

absl::StatusOr<at::Tensor> Mamba::ForwardDifferentiable(
    const at::Tensor& embeddings, const std::vector<int64_t>& positions,
    const CancelToken& cancel) const {
  at::Tensor stream = embeddings;
  for (const Layer& layer : weights_.layers) {
    LIMPID_RETURN_IF_ERROR(cancel.Check());
    const Projected projected = ProjectIn(layer, stream);
    const at::Tensor activated = at::silu(DifferentiableConv1d(
        projected.x, layer.conv_weight, layer.conv_bias));
    const Selected selected = Select(layer, activated);
    const at::Tensor y =
        DifferentiableScan(activated, selected.delta, selected.b, selected.c,
                           layer.a, layer.skip) *
        at::silu(projected.z);
    stream = stream + ProjectOut(layer, y);
  }
  return Logits(stream, positions);
}

int64_t Mamba::ForwardBytes(int64_t batch, int64_t length) const {
  // Live at once in a block: stream and its norm (with two temporaries), the
  // input projection, and six inner tensors.
  const int64_t floats = 5 * config_.hidden + 8 * config_.inner +
                         2 * config_.rank + 4 * config_.state;
  return batch * length * floats * at::elementSize(options_.dtype);
}

int64_t Mamba::GradientBytes(int64_t batch, int64_t length) const {
  // Kept per layer for the backward pass, counted from its operations, and
  // once the working set of a block's backward pass.
  const int64_t kept = 4 * config_.hidden + 9 * config_.inner +
                       3 * (config_.rank + 2 * config_.state);
  const int64_t working =
      6 * config_.hidden + 14 * config_.inner +
      (config_.state + 1) * std::min<int64_t>(config_.inner, 1024);
  return batch * length * (kept * config_.num_layers + working) *
         at::elementSize(options_.dtype);
}

int64_t Mamba::VisitBytes(int64_t length) const {
  const int64_t element = at::elementSize(options_.dtype);
  const SlabShape slab = ChooseSlab(config_.inner, length, length, element,
                                    options_.device.is_cpu());
  // The slab, the activation's ratio, and the tensors of a BlockMap.
  return element * (slab.channels * slab.rows * length +
                    6 * config_.inner * length);
}

double Mamba::ForwardFlops(int64_t length) const {
  const double inner = config_.inner, hidden = config_.hidden;
  const double per_token =
      2 * (3 * inner * hidden +
           inner * (2 * config_.rank + 2 * config_.state)) +
      inner * (2.0 * config_.conv_width + 8.0 * config_.state + 20) +
      8 * hidden;
  return config_.num_layers * length * per_token +
         2 * hidden * config_.vocabulary;
}

double Mamba::AttentionFlops(int64_t length, int64_t rows) const {
  // Entries on and below the diagonal of the last `rows` rows.
  const double entries = rows * (length - 0.5 * (rows - 1));
  return config_.inner * entries *
         (2.0 * (config_.state + config_.conv_width) + 4);
}

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                    WeightReader& reader) {
  LIMPID_ASSIGN_OR_RETURN(const Config config, ReadConfig(file));
  LIMPID_ASSIGN_OR_RETURN(Weights weights, ReadWeights(config, reader));
  return std::make_unique<Mamba>(config, std::move(weights), reader.options());
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "mamba";
  spec.model_types = {"mamba"};
  spec.tiny_configs = {
      R"({"model_type": "mamba", "vocab_size": 13, "hidden_size": 10,
          "state_size": 5, "num_hidden_layers": 2, "time_step_rank": "auto"})",
      R"({"model_type": "mamba", "vocab_size": 11, "hidden_size": 6,
          "state_size": 3, "num_hidden_layers": 3, "time_step_rank": 2,
          "expand": 1.5, "conv_kernel": 3, "use_bias": true,
          "use_conv_bias": false, "tie_word_embeddings": false})",
      R"({"model_type": "mamba", "vocab_size": 9, "hidden_size": 34,
          "state_size": 16, "num_hidden_layers": 1, "conv_kernel": 1})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::mamba
