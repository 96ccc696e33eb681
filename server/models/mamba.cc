// SPDX-License-Identifier: Apache-2.0
#include "server/models/mamba.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/models/kernel_ops.h"
#include "server/models/layers.h"
#include "server/models/residual_network.h"
#include "server/models/s6.h"
#include "server/models/weights.h"

namespace limpid::architectures::mamba {
namespace {

// Sizes and switches of config.json. E hidden, V vocabulary.
struct Config {
  int64_t vocabulary = 0;  // V
  int64_t hidden = 0;      // E
  int64_t num_layers = 0;
  S6Sizes s6;
  double epsilon = 0;
  bool projection_bias = false;
  bool conv_bias = false;
  bool tied_head = false;
};

struct LayerWeights {
  at::Tensor norm;                // [E]
  at::Tensor in_weight, in_bias;  // [2D, E], [2D] or undefined
  S6Weights s6;
  at::Tensor out_weight, out_bias;  // [E, D], [E] or undefined
};

absl::StatusOr<Config> ReadConfig(HfConfig& file) {
  Config config;
  config.vocabulary = file.RequiredInt("vocab_size", 1, kMaxSize);
  config.hidden = file.RequiredInt("hidden_size", 1, kMaxSize);
  config.num_layers = file.RequiredInt("num_hidden_layers", 1, 4096);
  config.s6.state = file.Int("state_size", 16, 1, kernels::kMaxStateSize);
  config.s6.conv_width = file.Int("conv_kernel", 4, 1, kernels::kMaxConvWidth);
  const double expand = file.Double("expand", 2);
  if (!(expand > 0 && expand <= 64)) {
    file.AddError("expand", "must be above 0 and at most 64");
  } else {
    config.s6.inner = static_cast<int64_t>(expand * config.hidden);
  }
  config.s6.rank = (config.hidden + 15) / 16;
  if (!file.IsString("time_step_rank")) {
    config.s6.rank = file.Int("time_step_rank", config.s6.rank, 1, kMaxSize);
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
  if (file.String("model_type", "") == "falcon_mamba") {
    config.s6.selection_norm = file.Double("mixer_rms_eps", 1e-6);
  }
  LIMPID_RETURN_IF_ERROR(file.status());
  return config;
}

class MambaLayer final : public Layer {
 public:
  MambaLayer(const Config& config, LayerWeights weights)
      : config_(config), weights_(std::move(weights)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override;
  int64_t num_channels() const override { return config_.s6.inner; }
  LayerCost Cost(int64_t length) const override;

 private:
  const Config config_;
  const LayerWeights weights_;
};

at::Tensor MambaLayer::Run(const at::Tensor& stream, Pass& pass) const {
  const LayerWeights& w = weights_;
  const int64_t inner = config_.s6.inner;
  const at::Tensor both =
      Project(RmsNorm(stream, w.norm, config_.epsilon, pass), w.in_weight,
              w.in_bias, pass);
  const at::Tensor x = both.narrow(-1, 0, inner);
  AfterScan after;
  after.gate_input = both.narrow(-1, inner, inner);
  const S6Run run = RunS6(x, w.s6, config_.s6, after, pass);
  const at::Tensor& output = run.y;
  if (pass.visits()) {
    BlockTrace trace;
    trace.directions.push_back(run.Trace(w.s6));
    trace.x = x;
    trace.gate = run.gate;
    trace.output = output;
    trace.projection = {w.out_weight, w.out_bias};
    trace.stream = stream;
    VisitBlocks(pass, std::move(trace));
  }
  return stream +
         pass.BlockOutput(Project(output, w.out_weight, w.out_bias, pass));
}

LayerCost MambaLayer::Cost(int64_t length) const {
  const int64_t inner = config_.s6.inner, hidden = config_.hidden;
  const S6Cost s6 = CostOfS6(config_.s6);
  LayerCost cost;
  cost.forward = length * (4 * hidden + 5 * inner + s6.forward);
  cost.gradient = length * (4 * hidden + 5 * inner + s6.gradient);
  cost.backward = length * (6 * hidden + 4 * inner + s6.backward);
  cost.map = 8 * inner * length;
  cost.flops = length * (6.0 * inner * hidden + 8.0 * hidden + s6.flops);
  cost.entry_flops = s6.entry_flops;
  return cost;
}

LayerWeights ReadLayer(const Config& config, int64_t index,
                       WeightReader& reader) {
  const int64_t inner = config.s6.inner, hidden = config.hidden;
  const std::string at_layer = absl::StrCat("backbone.layers.", index, ".");
  const std::string mixer = at_layer + "mixer.";
  LayerWeights w;
  w.norm = reader.Take({at_layer + "norm.weight"}, {hidden});
  w.in_weight = reader.Take({mixer + "in_proj.weight"}, {2 * inner, hidden});
  w.in_bias = reader.TakeIf(config.projection_bias, {mixer + "in_proj.bias"},
                            {2 * inner});
  w.s6 = TakeS6(reader, mixer, "", config.s6, config.conv_bias);
  w.out_weight = reader.Take({mixer + "out_proj.weight"}, {hidden, inner});
  w.out_bias = reader.TakeIf(config.projection_bias, {mixer + "out_proj.bias"},
                             {hidden});
  return w;
}

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  LIMPID_ASSIGN_OR_RETURN(const Config config, ReadConfig(file));
  const at::Tensor embeddings =
      reader.Take({"backbone.embeddings.weight", "backbone.embedding.weight"},
                  {config.vocabulary, config.hidden});
  const at::Tensor final_norm =
      reader.Take({"backbone.norm_f.weight"}, {config.hidden});
  const at::Tensor head =
      config.tied_head
          ? embeddings
          : reader.Take({"lm_head.weight"}, {config.vocabulary, config.hidden});
  std::vector<LayerWeights> layers;
  for (int64_t index = 0; index < config.num_layers; ++index) {
    const WeightReader::Layer reading(reader, index);
    layers.push_back(ReadLayer(config, index, reader));
  }
  LIMPID_RETURN_IF_ERROR(reader.status());

  ResidualParts parts;
  for (LayerWeights& weights : layers) {
    FinishS6(weights.s6);
    parts.layers.push_back(
        std::make_unique<MambaLayer>(config, std::move(weights)));
  }
  parts.info.architecture = "mamba";
  parts.info.hidden_size = config.hidden;
  parts.info.state_size = config.s6.state;
  parts.info.vocabulary_size = config.vocabulary;
  parts.info.forms = {AttentionForm::kFull,         AttentionForm::kState,
                      AttentionForm::kNoConv,       AttentionForm::kNoGate,
                      AttentionForm::kNoActivation, AttentionForm::kUpstream};
  parts.SetWeights(reader);
  parts.mean_embedding = embeddings.mean(0);
  parts.embed = TokenEmbedding(embeddings);
  parts.head = [=, epsilon = config.epsilon](const at::Tensor& stream,
                                             const Pass& pass) {
    return Project(RmsNorm(stream, final_norm, epsilon, pass), head, pass);
  };
  return MakeResidualNetwork(std::move(parts));
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "mamba";
  spec.model_types = {"mamba", "falcon_mamba"};
  spec.tiny_configs = {
      R"({"model_type": "mamba", "vocab_size": 13, "hidden_size": 10,
          "state_size": 5, "num_hidden_layers": 2, "time_step_rank": "auto"})",
      R"({"model_type": "mamba", "vocab_size": 11, "hidden_size": 6,
          "state_size": 3, "num_hidden_layers": 3, "time_step_rank": 2,
          "expand": 1.5, "conv_kernel": 3, "use_bias": true,
          "use_conv_bias": false, "tie_word_embeddings": false})",
      R"({"model_type": "mamba", "vocab_size": 9, "hidden_size": 34,
          "state_size": 16, "num_hidden_layers": 1, "conv_kernel": 1})",
      R"({"model_type": "falcon_mamba", "vocab_size": 9, "hidden_size": 8,
          "state_size": 4, "num_hidden_layers": 2})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::mamba
