// SPDX-License-Identifier: Apache-2.0
#include "server/models/mamba2.h"

#include <ATen/ATen.h>

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/models/factored_attention.h"
#include "server/models/kernel_ops.h"
#include "server/models/layers.h"
#include "server/models/residual_network.h"
#include "server/models/weights.h"

namespace limpid::architectures::mamba2 {
namespace {

struct Config {
  int64_t vocabulary = 0;  // V
  int64_t hidden = 0;      // E
  int64_t num_heads = 0;   // H
  int64_t head_size = 0;   // P
  int64_t num_groups = 0;  // G
  int64_t state = 0;       // N
  int64_t conv_width = 0;  // K
  int64_t num_layers = 0;
  double epsilon = 0;
  double smallest_step = 0;
  double largest_step = 0;
  bool projection_bias = false;
  bool conv_bias = false;
  bool tied_head = false;

  int64_t inner() const { return num_heads * head_size; }  // D
  int64_t selected() const { return num_groups * state; }  // G N
  int64_t convolved() const { return inner() + 2 * selected(); }
};

struct LayerWeights {
  at::Tensor norm;                    // [E]
  at::Tensor in_weight, in_bias;      // [2D + 2GN + H, E]
  at::Tensor conv_weight, conv_bias;  // [D + 2GN, K], [D + 2GN]
  at::Tensor step_bias;               // [H]
  at::Tensor a;                       // [H], negative
  at::Tensor skip;                    // [D]
  at::Tensor gated_norm;              // [D]
  at::Tensor out_weight, out_bias;    // [E, D], [E]
};

absl::StatusOr<Config> ReadConfig(HfConfig& file) {
  Config config;
  config.vocabulary = file.RequiredInt("vocab_size", 1, kMaxSize);
  config.hidden = file.RequiredInt("hidden_size", 1, kMaxSize);
  config.num_layers = file.RequiredInt("num_hidden_layers", 1, 4096);
  config.num_heads = file.Int("num_heads", 128, 1, kMaxSize);
  config.head_size = file.Int("head_dim", 64, 1, kMaxSize);
  config.num_groups = file.Int("n_groups", 8, 1, kMaxSize);
  config.state = file.Int("state_size", 128, 1, kernels::kMaxStateSize);
  config.conv_width = file.Int("conv_kernel", 4, 1, kernels::kMaxConvWidth);
  const double expand = file.Double("expand", 2);
  if (static_cast<int64_t>(expand * static_cast<double>(config.hidden)) !=
      config.inner()) {
    file.AddError("num_heads",
                  "times head_dim must be expand times "
                  "hidden_size");
  }
  if (config.num_heads % config.num_groups != 0) {
    file.AddError("n_groups", "must divide num_heads");
  }
  const std::vector<double> limits = file.Doubles("time_step_limit");
  config.largest_step = std::numeric_limits<double>::infinity();
  if (limits.size() == 2 && limits[0] >= 0 && limits[0] <= limits[1]) {
    config.smallest_step = limits[0];
    config.largest_step = limits[1];
  } else if (!limits.empty()) {
    file.AddError("time_step_limit", "must be two ascending numbers >= 0");
  }
  config.epsilon = file.Double("layer_norm_epsilon", 1e-5);
  config.projection_bias = file.Bool("use_bias", false);
  config.conv_bias = file.Bool("use_conv_bias", true);
  config.tied_head = file.Bool("tie_word_embeddings", false);
  const std::string activation = file.String("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    file.AddError("hidden_act", "must be \"silu\"");
  }
  LIMPID_RETURN_IF_ERROR(file.status());
  return config;
}

class Mamba2Layer final : public Layer {
 public:
  Mamba2Layer(const Config& config, LayerWeights weights)
      : config_(config), weights_(std::move(weights)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override;
  int64_t num_channels() const override { return config_.inner(); }
  int64_t channels_per_head() const override { return config_.head_size; }
  int64_t num_heads() const override { return config_.num_heads; }
  LayerCost Cost(int64_t length) const override;

 private:
  const Config config_;
  const LayerWeights weights_;
};

at::Tensor Mamba2Layer::Run(const at::Tensor& stream, Pass& pass) const {
  const LayerWeights& w = weights_;
  const int64_t batch = stream.size(0), length = stream.size(1);
  const int64_t inner = config_.inner(), heads = config_.num_heads,
                groups = config_.num_groups, state = config_.state;
  const at::Tensor all = Project(RmsNorm(stream, w.norm, config_.epsilon, pass),
                                 w.in_weight, w.in_bias, pass);
  const at::Tensor gate = pass.Factor(at::silu(all.narrow(-1, 0, inner)));
  const at::Tensor mixed = all.narrow(-1, inner, config_.convolved());
  const at::Tensor conv =
      Convolve(mixed, w.conv_weight, w.conv_bias, pass.packing);
  const at::Tensor ratio = pass.Factor(at::sigmoid(conv));
  const at::Tensor activated = ratio * conv;
  const at::Tensor step =
      pass
          .Factor(at::clamp(
              at::softplus(all.narrow(-1, inner + config_.convolved(), heads) +
                           w.step_bias),
              config_.smallest_step, config_.largest_step))
          .unsqueeze(-1);
  // Heads of a group are neighbours and share B and C.
  const auto selected = [&](int64_t begin) {
    return pass.Factor(activated.narrow(-1, begin, config_.selected()))
        .reshape({batch, length, groups, 1, state})
        .expand({batch, length, groups, heads / groups, state})
        .reshape({batch, length, heads, state});
  };
  FrozenRecurrence recurrence;
  recurrence.key = selected(inner) * step;
  recurrence.query = selected(inner + config_.selected());
  recurrence.decay =
      at::exp(step * w.a.view({heads, 1})).expand(recurrence.key.sizes());
  const at::Tensor values = activated.narrow(-1, 0, inner);
  const at::Tensor y =
      StateScan(recurrence,
                values.reshape({batch, length, heads, config_.head_size}),
                pass.packing)
          .view({batch, length, inner}) +
      w.skip * values;
  const at::Tensor gated = y * gate;
  // The norm's groups are those of B and C.
  const at::Tensor inverse = at::rsqrt(gated.view({batch, length, groups, -1})
                                           .square()
                                           .mean(-1, /*keepdim=*/true) +
                                       config_.epsilon);
  const at::Tensor norm =
      pass.Factor(inverse.expand({batch, length, groups, inner / groups})
                      .reshape({batch, length, inner}) *
                  w.gated_norm);
  const at::Tensor output = gated * norm;
  if (pass.visits()) {
    DirectionTrace direction;
    direction.recurrence =
        MakeRecurrenceOperator(recurrence, config_.head_size, w.skip);
    direction.conv_weight = w.conv_weight.narrow(0, 0, inner);
    if (w.conv_bias.defined()) {
      direction.conv_bias = w.conv_bias.narrow(0, 0, inner);
    }
    direction.conv = conv.narrow(-1, 0, inner);
    direction.ratio = ratio.narrow(-1, 0, inner);
    BlockTrace trace;
    trace.directions.push_back(std::move(direction));
    trace.x = mixed.narrow(-1, 0, inner);
    trace.norm = norm;
    trace.gate = gate;
    trace.output = output;
    trace.projection = {w.out_weight, w.out_bias};
    trace.stream = stream;
    VisitBlocks(pass, std::move(trace));
  }
  return stream +
         pass.BlockOutput(Project(output, w.out_weight, w.out_bias, pass));
}

LayerCost Mamba2Layer::Cost(int64_t length) const {
  const int64_t inner = config_.inner(), hidden = config_.hidden;
  const int64_t convolved = config_.convolved();
  const int64_t keys = config_.num_heads * config_.state;
  LayerCost cost;
  cost.forward = length * (4 * hidden + 12 * inner + 5 * convolved + 4 * keys);
  cost.gradient = length * (4 * hidden + 14 * inner +
                            (8 + config_.conv_width) * convolved + 6 * keys);
  cost.backward =
      length * (6 * hidden + 10 * inner + 6 * convolved + 8 * keys) +
      160 * config_.state * inner;
  cost.map = 10 * inner * length;
  cost.flops = length * (2.0 * hidden * (3 * inner + 2 * config_.selected()) +
                         inner * (6.0 * config_.state + 60) +
                         2.0 * convolved * config_.conv_width);
  cost.entry_flops =
      2.0 * config_.conv_width + 6 +
      4.0 * config_.state / static_cast<double>(config_.head_size);
  return cost;
}

LayerWeights ReadLayer(const Config& config, int64_t index,
                       WeightReader& reader) {
  const int64_t inner = config.inner(), hidden = config.hidden;
  const std::string at_layer = absl::StrCat("backbone.layers.", index, ".");
  const std::string mixer = at_layer + "mixer.";
  const int64_t projected = inner + config.convolved() + config.num_heads;
  LayerWeights w;
  w.norm = reader.Take({at_layer + "norm.weight"}, {hidden});
  w.in_weight = reader.Take({mixer + "in_proj.weight"}, {projected, hidden});
  w.in_bias = reader.TakeIf(config.projection_bias, {mixer + "in_proj.bias"},
                            {projected});
  w.conv_weight = reader.Take({mixer + "conv1d.weight"},
                              {config.convolved(), 1, config.conv_width});
  w.conv_bias = reader.TakeIf(config.conv_bias, {mixer + "conv1d.bias"},
                              {config.convolved()});
  w.step_bias = reader.Take({mixer + "dt_bias"}, {config.num_heads});
  w.a = reader.Take({mixer + "A_log"}, {config.num_heads});
  w.skip = reader.Take({mixer + "D"}, {config.num_heads});
  w.gated_norm = reader.Take({mixer + "norm.weight"}, {inner});
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
  for (LayerWeights& w : layers) {
    w.conv_weight = w.conv_weight.squeeze(1).contiguous();
    w.a = -w.a.exp();
    w.skip = reader.Keep(w.skip.repeat_interleave(config.head_size));
    parts.layers.push_back(std::make_unique<Mamba2Layer>(config, std::move(w)));
  }
  parts.info.architecture = "mamba2";
  parts.info.hidden_size = config.hidden;
  parts.info.state_size = config.state;
  parts.info.vocabulary_size = config.vocabulary;
  parts.info.forms = {AttentionForm::kFull,         AttentionForm::kState,
                      AttentionForm::kNoConv,       AttentionForm::kNoGate,
                      AttentionForm::kNoActivation, AttentionForm::kNoNorm,
                      AttentionForm::kUpstream};
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
  spec.id = "mamba2";
  spec.model_types = {"mamba2"};
  spec.tiny_configs = {
      R"({"model_type": "mamba2", "vocab_size": 11, "hidden_size": 6,
          "num_heads": 4, "head_dim": 3, "n_groups": 2, "state_size": 5,
          "num_hidden_layers": 2, "tie_word_embeddings": true})",
      R"({"model_type": "mamba2", "vocab_size": 9, "hidden_size": 8,
          "num_heads": 2, "head_dim": 8, "n_groups": 1, "state_size": 3,
          "conv_kernel": 2, "num_hidden_layers": 1, "use_bias": true,
          "use_conv_bias": false, "time_step_limit": [0.3, 1.2]})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::mamba2
