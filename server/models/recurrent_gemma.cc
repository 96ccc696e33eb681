// SPDX-License-Identifier: Apache-2.0
#include "server/models/recurrent_gemma.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/models/factored_attention.h"
#include "server/models/kernel_ops.h"
#include "server/models/layers.h"
#include "server/models/residual_network.h"
#include "server/models/weights.h"

namespace limpid::architectures::recurrent_gemma {
namespace {

struct Config {
  int64_t vocabulary = 0;  // V
  int64_t hidden = 0;      // E
  int64_t inner = 0;       // W: channels of recurrent layers
  int64_t mlp = 0;         // F
  int64_t num_layers = 0;
  int64_t num_heads = 0;  // H: of attention, and blocks of the gates
  int64_t num_kv_heads = 0;
  int64_t head_size = 0;
  int64_t window = 0;
  int64_t conv_width = 0;   // K
  int64_t rotary_size = 0;  // dimensions of a head that are rotated
  double rotary_base = 0;
  double epsilon = 0;
  double soft_cap = 0;
  bool attention_bias = false;
  bool tied_head = true;
  std::vector<bool> is_attention;  // of each layer
};

// exp(-8 gate softplus(parameter)): the recurrence's decay.
constexpr double kDecayScale = 8;

absl::StatusOr<Config> ReadConfig(HfConfig& file) {
  Config config;
  config.vocabulary = file.RequiredInt("vocab_size", 1, kMaxSize);
  config.hidden = file.RequiredInt("hidden_size", 1, kMaxSize);
  config.num_layers = file.RequiredInt("num_hidden_layers", 1, 4096);
  config.num_heads = file.RequiredInt("num_attention_heads", 1, 4096);
  config.num_kv_heads =
      file.Int("num_key_value_heads", config.num_heads, 1, 4096);
  config.head_size = file.Int(
      "head_dim", config.hidden / std::max<int64_t>(1, config.num_heads), 1,
      kMaxSize);
  config.inner = file.Int("lru_width", config.hidden, 1, kMaxSize);
  const int64_t twice = file.RequiredInt("intermediate_size", 2, kMaxSize);
  config.mlp = twice / 2;
  if (twice % 2 != 0) file.AddError("intermediate_size", "must be even");
  config.window = file.Int("attention_window_size", 2048, 0, kMaxSize);
  config.conv_width = file.Int("conv1d_width", 4, 1, kernels::kMaxConvWidth);
  config.epsilon = file.Double("rms_norm_eps", 1e-6);
  config.soft_cap = file.Double("logits_soft_cap", 30);
  if (!(config.soft_cap > 0)) {
    file.AddError("logits_soft_cap", "must be above 0");
  }
  config.attention_bias = file.Bool("attention_bias", false);
  config.tied_head = file.Bool("tie_word_embeddings", true);
  const std::string activation =
      file.String("hidden_activation", "gelu_pytorch_tanh");
  if (activation != "gelu_pytorch_tanh") {
    file.AddError("hidden_activation", "must be \"gelu_pytorch_tanh\"");
  }
  // Newer files hold the rotary fields in an object of their own.
  HfConfig rotary = file.Object("rope_parameters");
  config.rotary_base =
      rotary.Double("rope_theta", file.Double("rope_theta", 10000));
  const double rotated = rotary.Double(
      "partial_rotary_factor", file.Double("partial_rotary_factor", 0.5));
  if (!(rotated >= 0 && rotated <= 1)) {
    file.AddError("partial_rotary_factor", "must be from 0 to 1");
  }
  config.rotary_size =
      static_cast<int64_t>(rotated * static_cast<double>(config.head_size));
  if (config.rotary_size % 2 != 0) {
    file.AddError("partial_rotary_factor",
                  "must rotate an even number of dimensions");
  }
  if (config.num_heads % config.num_kv_heads != 0) {
    file.AddError("num_key_value_heads", "must divide num_attention_heads");
  }
  if (config.inner % config.num_heads != 0) {
    file.AddError("lru_width", "must be a multiple of num_attention_heads");
  }
  const char* types_field =
      file.Has("block_types") ? "block_types" : "_block_types";
  std::vector<std::string> types = file.Strings(types_field);
  if (types.empty()) types = {"recurrent", "recurrent", "attention"};
  for (const std::string& type : types) {
    if (type != "recurrent" && type != "attention") {
      file.AddError(types_field, "must hold \"recurrent\" or \"attention\"");
      break;
    }
  }
  LIMPID_RETURN_IF_ERROR(rotary.status());
  LIMPID_RETURN_IF_ERROR(file.status());
  for (int64_t index = 0; index < config.num_layers; ++index) {
    config.is_attention.push_back(types[index % types.size()] == "attention");
  }
  return config;
}

// Weight [out, in] and bias [out] of a projection; the bias may be undefined.
struct Linear {
  at::Tensor weight, bias;

  at::Tensor operator()(const at::Tensor& x, const Pass& pass) const {
    return Project(x, weight, bias, pass);
  }
};

Linear TakeLinear(WeightReader& reader, const std::string& name, int64_t in,
                  int64_t out, bool bias = true) {
  return {reader.Take({name + ".weight"}, {out, in}),
          reader.TakeIf(bias, {name + ".bias"}, {out})};
}

// The half of a layer that follows the temporal block: a gated MLP.
struct Mlp {
  at::Tensor norm;  // [E], one added
  Linear gate, up, down;

  at::Tensor Run(const at::Tensor& stream, double epsilon,
                 const Pass& pass) const {
    const at::Tensor m = RmsNorm(stream, norm, epsilon, pass);
    return stream +
           down(pass.Factor(at::gelu(gate(m, pass), "tanh")) * up(m, pass),
                pass);
  }
};

// What both kinds of layers have.
class GemmaLayer : public Layer {
 public:
  GemmaLayer(const Config& config, at::Tensor norm, Mlp mlp)
      : config_(config), norm_(std::move(norm)), mlp_(std::move(mlp)) {}

 protected:
  // Of everything but the temporal block.
  LayerCost CommonCost(int64_t length) const {
    const int64_t hidden = config_.hidden, mlp = config_.mlp;
    LayerCost cost;
    cost.forward = length * (5 * hidden + 5 * mlp);
    cost.gradient = length * (10 * hidden + 6 * mlp);
    cost.backward = length * (8 * hidden + 6 * mlp);
    cost.flops = length * (6.0 * hidden * mlp + 20.0 * (hidden + mlp));
    return cost;
  }

  const Config config_;
  const at::Tensor norm_;  // [E], one added
  const Mlp mlp_;
};

struct RecurrentWeights {
  Linear x, y, out;
  at::Tensor conv_weight, conv_bias;    // [W, K], [W]
  at::Tensor decay;                     // [W]: softplus of the parameter
  at::Tensor input_weight, input_bias;  // [H, W/H, W/H], [H, W/H]
  at::Tensor decay_weight, decay_bias;
};

class RecurrentLayer final : public GemmaLayer {
 public:
  RecurrentLayer(const Config& config, at::Tensor norm, Mlp mlp,
                 RecurrentWeights weights)
      : GemmaLayer(config, std::move(norm), std::move(mlp)),
        weights_(std::move(weights)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override;
  int64_t num_channels() const override { return config_.inner; }
  LayerCost Cost(int64_t length) const override {
    const int64_t inner = config_.inner;
    LayerCost cost = CommonCost(length);
    cost.forward += length * 14 * inner;
    cost.gradient += length * (20 + config_.conv_width) * inner;
    cost.backward += length * 20 * inner;
    cost.map = 8 * inner * length;
    cost.flops +=
        length * (6.0 * inner * config_.hidden +
                  4.0 * inner * inner / config_.num_heads + 60.0 * inner);
    cost.entry_flops = 2.0 * config_.conv_width + 4;
    return cost;
  }

 private:
  // sigmoid of a block-diagonal projection, float32 in every precision.
  at::Tensor Gate(const at::Tensor& conv, const at::Tensor& weight,
                  const at::Tensor& bias) const {
    const at::Tensor blocks =
        conv.view({conv.size(0), conv.size(1), config_.num_heads, -1});
    return at::sigmoid(at::einsum("blhi,hij->blhj", {blocks, weight}) + bias)
        .reshape(conv.sizes());
  }

  const RecurrentWeights weights_;
};

at::Tensor RecurrentLayer::Run(const at::Tensor& stream, Pass& pass) const {
  const RecurrentWeights& w = weights_;
  const at::Tensor n = RmsNorm(stream, norm_, config_.epsilon, pass);
  const at::Tensor gate = pass.Factor(at::gelu(w.y(n, pass), "tanh"));
  const at::Tensor x = w.x(n, pass);
  const at::Tensor conv = Convolve(x, w.conv_weight, w.conv_bias, pass.packing);
  const at::Tensor log_decay =
      Gate(conv, w.decay_weight, w.decay_bias) * (-kDecayScale * w.decay);
  // sqrt(1 - decay^2), without cancellation where the decay is nearly one. A
  // document begins at position 0: its input is not scaled.
  const at::Tensor scale = at::sqrt(-at::expm1(
      2 * log_decay.index_fill(1, pass.packing.FirstPositions(log_decay),
                               -std::numeric_limits<double>::infinity())));
  FrozenRecurrence recurrence;
  recurrence.key = pass.Factor(scale * Gate(conv, w.input_weight, w.input_bias))
                       .unsqueeze(-1);
  recurrence.decay = pass.Factor(at::exp(log_decay)).unsqueeze(-1);
  recurrence.query =
      at::ones({1}, conv.options()).expand(recurrence.key.sizes());
  const at::Tensor output =
      StateScan(recurrence, conv.unsqueeze(-1), pass.packing).squeeze(-1) *
      gate;
  if (pass.visits()) {
    DirectionTrace direction;
    direction.recurrence = MakeRecurrenceOperator(recurrence, 1, at::Tensor());
    direction.conv_weight = w.conv_weight;
    direction.conv_bias = w.conv_bias;
    direction.conv = conv;
    BlockTrace trace;
    trace.directions.push_back(std::move(direction));
    trace.x = x;
    trace.gate = gate;
    trace.output = output;
    trace.projection = {w.out.weight, w.out.bias};
    trace.stream = stream;
    VisitBlocks(pass, std::move(trace));
  }
  return mlp_.Run(stream + pass.BlockOutput(w.out(output, pass)),
                  config_.epsilon, pass);
}

struct AttentionWeights {
  Linear q, k, v, out;
};

class AttentionLayer final : public GemmaLayer {
 public:
  AttentionLayer(const Config& config, at::Tensor norm, Mlp mlp,
                 AttentionWeights weights)
      : GemmaLayer(config, std::move(norm), std::move(mlp)),
        weights_(std::move(weights)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override;
  int64_t num_channels() const override {
    return config_.num_heads * config_.head_size;
  }
  int64_t channels_per_head() const override { return config_.head_size; }
  int64_t num_heads() const override { return config_.num_heads; }
  LayerCost Cost(int64_t length) const override {
    const int64_t inner = num_channels();
    const int64_t matrices = config_.num_heads * length * length;
    LayerCost cost = CommonCost(length);
    cost.forward += length * 10 * inner + 4 * matrices + 6 * length * length;
    cost.gradient += length * 10 * inner + 3 * matrices + length * length;
    cost.backward += length * 10 * inner + 3 * matrices;
    cost.map = 8 * inner * length;
    cost.flops += length * (8.0 * inner * config_.hidden) +
                  4.0 * matrices * config_.head_size;
    cost.entry_flops = 1;
    return cost;
  }

 private:
  // Minus infinity where a position may not look, [L, L].
  at::Tensor Mask(int64_t length, const at::TensorOptions& options) const {
    const at::Tensor at_position = at::arange(length, options.dtype(at::kLong));
    const at::Tensor distance =
        at_position.unsqueeze(1) - at_position.unsqueeze(0);
    return at::zeros({length, length}, options)
        .masked_fill_(distance.lt(0).logical_or_(distance.gt(config_.window)),
                      -std::numeric_limits<double>::infinity());
  }

  const AttentionWeights weights_;
};

at::Tensor AttentionLayer::Run(const at::Tensor& stream, Pass& pass) const {
  const int64_t batch = stream.size(0), length = stream.size(1);
  const int64_t size = config_.head_size;
  const int64_t shared = config_.num_heads / config_.num_kv_heads;
  const at::Tensor n = RmsNorm(stream, norm_, config_.epsilon, pass);
  const auto by_head = [&](const Linear& linear) {
    return linear(n, pass).view({batch, length, -1, size});
  };
  const at::Tensor v = by_head(weights_.v).repeat_interleave(shared, 2);
  const Packing& packing = pass.packing;
  const std::vector<at::Tensor> queries = packing.Split(by_head(weights_.q));
  const std::vector<at::Tensor> keys = packing.Split(by_head(weights_.k));
  const std::vector<at::Tensor> values = packing.Split(v);
  const auto rotated = [&](const at::Tensor& x) {
    return Rotate(x.transpose(1, 2), config_.rotary_size, config_.rotary_base);
  };
  std::vector<at::Tensor> outputs;
  std::vector<at::Tensor> all_probabilities;  // [H, L, L] of each sequence
  for (size_t i = 0; i < queries.size(); ++i) {
    const at::Tensor q = rotated(queries[i]);
    const at::Tensor k = rotated(keys[i]).repeat_interleave(shared, 1);
    const at::Tensor probabilities = pass.Factor(
        at::softmax(at::matmul(q, k.transpose(-1, -2)) /
                            std::sqrt(static_cast<double>(size)) +
                        Mask(q.size(2), stream.options().requires_grad(false)),
                    -1));
    outputs.push_back(
        at::matmul(probabilities, values[i].transpose(1, 2)).transpose(1, 2));
    for (int64_t b = 0; pass.visits() && b < probabilities.size(0); ++b) {
      all_probabilities.push_back(probabilities[b]);
    }
  }
  const at::Tensor output = Packing::Join(outputs).reshape({batch, length, -1});
  if (pass.visits()) {
    DirectionTrace direction;
    direction.recurrence =
        MakeSoftmaxOperator(std::move(all_probabilities), size);
    BlockTrace trace;
    trace.directions.push_back(std::move(direction));
    trace.x = v.reshape({batch, length, -1});
    trace.output = output;
    trace.projection = {weights_.out.weight, weights_.out.bias};
    trace.stream = stream;
    VisitBlocks(pass, std::move(trace));
  }
  return mlp_.Run(stream + pass.BlockOutput(weights_.out(output, pass)),
                  config_.epsilon, pass);
}

RecurrentWeights TakeRecurrent(const Config& config, const std::string& block,
                               WeightReader& reader) {
  const int64_t hidden = config.hidden, inner = config.inner;
  const int64_t heads = config.num_heads, size = inner / heads;
  RecurrentWeights w;
  w.x = TakeLinear(reader, block + "linear_x", hidden, inner);
  w.y = TakeLinear(reader, block + "linear_y", hidden, inner);
  w.out = TakeLinear(reader, block + "linear_out", inner, hidden);
  w.conv_weight =
      reader.Take({block + "conv_1d.weight"}, {inner, 1, config.conv_width});
  w.conv_bias = reader.Take({block + "conv_1d.bias"}, {inner});
  w.decay = reader.Take({block + "rg_lru.recurrent_param"}, {inner});
  const auto gate = [&](const char* name, const std::vector<int64_t>& shape) {
    return reader.Take({absl::StrCat(block, "rg_lru.", name)}, shape);
  };
  w.input_weight = gate("input_gate_weight", {heads, size, size});
  w.input_bias = gate("input_gate_bias", {heads, size});
  w.decay_weight = gate("recurrent_gate_weight", {heads, size, size});
  w.decay_bias = gate("recurrent_gate_bias", {heads, size});
  return w;
}

AttentionWeights TakeAttention(const Config& config, const std::string& block,
                               WeightReader& reader) {
  const int64_t hidden = config.hidden;
  const int64_t width = config.num_heads * config.head_size;
  const int64_t kv = config.num_kv_heads * config.head_size;
  const bool bias = config.attention_bias;
  return {TakeLinear(reader, block + "q_proj", hidden, width, bias),
          TakeLinear(reader, block + "k_proj", hidden, kv, bias),
          TakeLinear(reader, block + "v_proj", hidden, kv, bias),
          TakeLinear(reader, block + "o_proj", width, hidden)};
}

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  LIMPID_ASSIGN_OR_RETURN(const Config config, ReadConfig(file));
  const int64_t hidden = config.hidden;
  // Gemma's norms store the difference of their weight from one.
  const auto take_norm = [&](const std::string& name) {
    const at::Tensor stored = reader.Take({name + ".weight"}, {hidden});
    return stored.defined() ? stored + 1 : stored;
  };
  const at::Tensor embeddings =
      reader.Take({"model.embed_tokens.weight"}, {config.vocabulary, hidden});
  const at::Tensor head =
      config.tied_head
          ? embeddings
          : reader.Take({"lm_head.weight"}, {config.vocabulary, hidden});
  const at::Tensor final_norm = take_norm("model.final_norm");
  ResidualParts parts;
  std::vector<std::function<std::unique_ptr<const Layer>()>> makers;
  for (int64_t index = 0; index < config.num_layers; ++index) {
    const WeightReader::Layer reading(reader, index);
    const std::string at_layer = absl::StrCat("model.layers.", index, ".");
    const std::string block = at_layer + "temporal_block.";
    const std::string mlp_block = at_layer + "mlp_block.";
    const at::Tensor norm = take_norm(at_layer + "temporal_pre_norm");
    Mlp mlp;
    mlp.norm = take_norm(at_layer + "channel_pre_norm");
    mlp.gate = TakeLinear(reader, mlp_block + "gate_proj", hidden, config.mlp);
    mlp.up = TakeLinear(reader, mlp_block + "up_proj", hidden, config.mlp);
    mlp.down = TakeLinear(reader, mlp_block + "down_proj", config.mlp, hidden);
    if (config.is_attention[index]) {
      const AttentionWeights w = TakeAttention(config, block, reader);
      makers.push_back([=, &config]() -> std::unique_ptr<const Layer> {
        return std::make_unique<AttentionLayer>(config, norm, mlp, w);
      });
    } else {
      RecurrentWeights w = TakeRecurrent(config, block, reader);
      makers.push_back([=, &config]() mutable -> std::unique_ptr<const Layer> {
        w.conv_weight = w.conv_weight.squeeze(1).contiguous();
        w.decay = at::softplus(w.decay);
        return std::make_unique<RecurrentLayer>(config, norm, mlp, w);
      });
    }
  }
  LIMPID_RETURN_IF_ERROR(reader.status());
  for (const auto& make : makers) parts.layers.push_back(make());

  parts.info.architecture = "recurrent_gemma";
  parts.info.hidden_size = hidden;
  parts.info.state_size = 1;
  parts.info.vocabulary_size = config.vocabulary;
  parts.info.forms = {AttentionForm::kFull, AttentionForm::kState,
                      AttentionForm::kNoConv, AttentionForm::kNoGate,
                      AttentionForm::kUpstream};
  parts.SetWeights(reader);
  // The published models round the scale to bfloat16.
  const double scale = at::scalar_tensor(std::sqrt(static_cast<double>(hidden)))
                           .to(at::kBFloat16)
                           .to(at::kDouble)
                           .item()
                           .toDouble();
  parts.mean_embedding = embeddings.mean(0) * scale;
  parts.embed = [lookup = TokenEmbedding(embeddings),
                 scale](const NetworkInput& input) {
    return lookup(input) * scale;
  };
  parts.head = [=, epsilon = config.epsilon](const at::Tensor& stream,
                                             const Pass& pass) {
    return Project(RmsNorm(stream, final_norm, epsilon, pass), head, pass);
  };
  parts.soft_cap = config.soft_cap;
  return MakeResidualNetwork(std::move(parts));
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "recurrent_gemma";
  spec.model_types = {"recurrent_gemma"};
  spec.tiny_configs = {
      R"({"model_type": "recurrent_gemma", "vocab_size": 11, "hidden_size": 8,
          "intermediate_size": 12, "num_hidden_layers": 3,
          "num_attention_heads": 2, "num_key_value_heads": 1,
          "attention_window_size": 50})",
      R"({"model_type": "recurrent_gemma", "vocab_size": 9, "hidden_size": 6,
          "intermediate_size": 10, "num_hidden_layers": 2, "lru_width": 9,
          "num_attention_heads": 3, "head_dim": 4, "attention_bias": true,
          "attention_window_size": 3, "conv1d_width": 2,
          "_block_types": ["attention", "recurrent"],
          "rope_parameters": {"rope_theta": 100.0,
                              "partial_rotary_factor": 1.0},
          "tie_word_embeddings": false})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::recurrent_gemma
