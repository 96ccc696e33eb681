// SPDX-License-Identifier: Apache-2.0
#include "server/models/linear_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/models/factored_attention.h"
#include "server/models/layers.h"
#include "server/models/residual_network.h"

namespace limpid {
namespace {

// A projection [n, E] and the convolution behind it, [n, K] and [n]; undefined:
// there is none.
struct Branch {
  at::Tensor weight;
  at::Tensor conv_weight, conv_bias;

  at::Tensor Convolved(const at::Tensor& projected,
                       const Packing& packing) const {
    return conv_weight.defined()
               ? Convolve(projected, conv_weight, conv_bias, packing)
               : projected;
  }
};

struct LayerWeights {
  at::Tensor norm;  // [E]
  Branch query, key, value;
  MakeRecurrence make_recurrence;
  at::Tensor inner_norm;        // [D] or undefined
  at::Tensor gate;              // [D, E] or undefined
  at::Tensor out;               // [E, D]
  at::Tensor mlp_norm;          // [E]
  at::Tensor mlp_gate, mlp_up;  // [F, E]
  at::Tensor mlp_down;          // [E, F]
};

class LinearAttentionLayer final : public Layer {
 public:
  LinearAttentionLayer(const LinearAttentionConfig& config,
                       LayerWeights weights)
      : config_(config),
        split_(SplitOfHead(config.value_size)),
        weights_(std::move(weights)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override {
    const LayerWeights& w = weights_;
    const at::Tensor after = stream + pass.BlockOutput(Mix(stream, pass));
    const at::Tensor m = RmsNorm(after, w.mlp_norm, config_.epsilon, pass);
    const at::Tensor gate = pass.Factor(at::silu(Project(m, w.mlp_gate, pass)));
    return after + Project(gate * Project(m, w.mlp_up, pass), w.mlp_down, pass);
  }
  int64_t num_channels() const override { return config_.inner(); }
  int64_t channels_per_head() const override {
    return config_.value_size / split_;
  }
  int64_t num_heads() const override { return config_.num_heads; }
  LayerCost Cost(int64_t length) const override;

 private:
  at::Tensor Mix(const at::Tensor& stream, Pass& pass) const;
  FrozenRecurrence Recurrence(const at::Tensor& normed, const Pass& pass) const;
  // Factor [B, L, D] of the norm of `raw` [B, L, D].
  at::Tensor InnerNorm(const at::Tensor& raw, const Pass& pass) const;

  const LinearAttentionConfig config_;
  const int64_t split_;
  const LayerWeights weights_;
};

FrozenRecurrence LinearAttentionLayer::Recurrence(const at::Tensor& normed,
                                                  const Pass& pass) const {
  const auto by_head = [&](const Branch& branch) {
    const at::Tensor x =
        branch.Convolved(Project(normed, branch.weight, pass), pass.packing);
    return (config_.silu_keys ? at::silu(x) : x)
        .view({normed.size(0), normed.size(1), config_.num_key_heads,
               config_.key_size});
  };
  FrozenRecurrence recurrence = weights_.make_recurrence(
      {normed, by_head(weights_.query), by_head(weights_.key)}, pass);
  recurrence.query =
      recurrence.query * std::pow(static_cast<double>(config_.key_size), -0.5);
  if (split_ > 1) {
    for (at::Tensor* operand :
         {&recurrence.query, &recurrence.key, &recurrence.decay,
          &recurrence.left, &recurrence.right}) {
      if (operand->defined()) *operand = RepeatHeads(*operand, split_);
    }
  }
  return recurrence;
}

at::Tensor LinearAttentionLayer::InnerNorm(const at::Tensor& raw,
                                           const Pass& pass) const {
  const int64_t groups = config_.norm_heads ? config_.num_heads : 1;
  const at::Tensor grouped = raw.view({raw.size(0), raw.size(1), groups, -1});
  const at::Tensor inverse =
      at::rsqrt(grouped.square().mean(-1, /*keepdim=*/true) +
                config_.norm_epsilon)
          .expand(grouped.sizes())
          .reshape(raw.sizes());
  return pass.Factor(
      weights_.inner_norm.defined() ? inverse * weights_.inner_norm : inverse);
}

at::Tensor LinearAttentionLayer::Mix(const at::Tensor& stream,
                                     Pass& pass) const {
  const LayerWeights& w = weights_;
  const int64_t batch = stream.size(0), length = stream.size(1);
  const at::Tensor n = RmsNorm(stream, w.norm, config_.epsilon, pass);
  const FrozenRecurrence recurrence = Recurrence(n, pass);
  const at::Tensor x = Project(n, w.value.weight, pass);
  const at::Tensor conv = w.value.Convolved(x, pass.packing);
  at::Tensor ratio, value = conv;
  if (config_.silu_values) {
    ratio = pass.Factor(at::sigmoid(conv));
    value = ratio * conv;
  }
  const at::Tensor raw =
      StateScan(recurrence,
                value.view({batch, length, -1, channels_per_head()}),
                pass.packing)
          .view(value.sizes());
  const at::Tensor norm = InnerNorm(raw, pass);
  at::Tensor gate, output = raw * norm;
  if (config_.gate) {
    gate = pass.Factor(at::silu(Project(n, w.gate, pass)));
    output = output * gate;
  }
  if (pass.visits()) {
    DirectionTrace direction;
    direction.recurrence =
        MakeRecurrenceOperator(recurrence, channels_per_head(), at::Tensor());
    if (w.value.conv_weight.defined()) {
      direction.conv_weight = w.value.conv_weight;
      direction.conv_bias = w.value.conv_bias;
      direction.conv = conv;
    }
    direction.ratio = ratio;
    BlockTrace trace;
    trace.directions.push_back(std::move(direction));
    trace.x = x;
    trace.norm = norm;
    trace.gate = gate;
    trace.output = output;
    trace.projection.weight = w.out;
    trace.stream = stream;
    VisitBlocks(pass, std::move(trace));
  }
  return Project(output, w.out, pass);
}

LayerCost LinearAttentionLayer::Cost(int64_t length) const {
  const int64_t hidden = config_.hidden, mlp = config_.mlp;
  const int64_t inner = config_.inner();
  // Queries and keys as they are projected, and operands of the recurrence.
  const int64_t keys = config_.keys();
  const int64_t operands = config_.num_heads * config_.key_size * split_;
  const int64_t rank_one = config_.rank_one ? 2 * operands : 0;
  const int64_t conv = config_.conv_width;
  LayerCost cost;
  cost.forward =
      length * (4 * hidden + std::max(4 * keys + 4 * operands + rank_one +
                                          (config_.gate ? 10 : 8) * inner,
                                      4 * mlp));
  cost.gradient =
      length * (6 * hidden + (8 + (conv > 0 ? 2 : 0)) * keys + 6 * operands +
                2 * rank_one + (config_.gate ? 11 : 8) * inner + 4 * mlp);
  cost.backward = length * (4 * hidden + std::max(4 * keys + 8 * operands +
                                                      2 * rank_one + 8 * inner,
                                                  6 * mlp)) +
                  160 * config_.key_size * inner;
  cost.map = 8 * inner * length;
  cost.flops =
      length * (2.0 * hidden * (2 * keys + (config_.gate ? 3 : 2) * inner) +
                6.0 * hidden * mlp + 2.0 * conv * (2 * keys + inner) +
                inner * config_.key_size * (config_.rank_one ? 8.0 : 4.0) +
                40.0 * (hidden + keys + inner + mlp));
  cost.entry_flops = 2.0 * conv + 4 +
                     (config_.rank_one ? 8.0 : 4.0) *
                         static_cast<double>(config_.key_size) /
                         static_cast<double>(channels_per_head());
  return cost;
}

// Tensors of one layer.
class LayerReader {
 public:
  LayerReader(const LinearAttentionConfig& config, int64_t index,
              WeightReader& reader)
      : config_(config),
        layer_(absl::StrCat("model.layers.", index, ".")),
        reader_(reader) {}

  std::string prefix() const { return layer_ + "attn."; }

  LayerWeights Read() {
    const int64_t hidden = config_.hidden, inner = config_.inner();
    const int64_t mlp = config_.mlp;
    LayerWeights w;
    w.norm = Take("attn_norm.weight", {hidden});
    w.query = TakeBranch({"q"}, config_.keys());
    // HGRN2 calls them forget gate and input.
    w.key = TakeBranch({"k", "f"}, config_.keys());
    w.value = TakeBranch({"v", "i"}, inner);
    if (config_.norm_weight) {
      // The name says how flash-linear-attention computes it.
      w.inner_norm =
          reader_.Take({prefix() + "g_norm_swish_gate.weight",
                        prefix() + "g_norm.weight", prefix() + "o_norm.weight"},
                       {config_.norm_heads ? config_.value_size : inner});
    }
    if (config_.gate) w.gate = Take("attn.g_proj.weight", {inner, hidden});
    w.out = Take("attn.o_proj.weight", {hidden, inner});
    w.mlp_norm = Take("mlp_norm.weight", {hidden});
    w.mlp_gate = Take("mlp.gate_proj.weight", {mlp, hidden});
    w.mlp_up = Take("mlp.up_proj.weight", {mlp, hidden});
    w.mlp_down = Take("mlp.down_proj.weight", {hidden, mlp});
    return w;
  }

 private:
  at::Tensor Take(const std::string& name, const std::vector<int64_t>& shape) {
    return reader_.Take({layer_ + name}, shape);
  }
  Branch TakeBranch(const std::vector<std::string>& letters, int64_t size) {
    const auto names = [&](const char* rest) {
      std::vector<std::string> out;
      for (const std::string& letter : letters) {
        out.push_back(prefix() + letter + rest);
      }
      return out;
    };
    Branch branch;
    branch.weight = reader_.Take(names("_proj.weight"), {size, config_.hidden});
    if (config_.conv_width > 0) {
      branch.conv_weight =
          reader_.Take(names("_conv1d.weight"), {size, 1, config_.conv_width});
      branch.conv_bias =
          reader_.TakeIf(config_.conv_bias, names("_conv1d.bias"), {size});
    }
    return branch;
  }

  const LinearAttentionConfig& config_;
  const std::string layer_;
  WeightReader& reader_;
};

// From the shapes in which tensors are stored to those that layers use.
void Prepare(const LinearAttentionConfig& config, WeightReader& reader,
             LayerWeights& w) {
  for (Branch* branch : {&w.query, &w.key, &w.value}) {
    if (!branch->conv_weight.defined()) continue;
    branch->conv_weight = branch->conv_weight.squeeze(1).contiguous();
  }
  if (w.inner_norm.defined() && config.norm_heads) {
    w.inner_norm = reader.Keep(w.inner_norm.repeat({config.num_heads}));
  }
}

std::vector<AttentionForm> FormsOf(const LinearAttentionConfig& config) {
  std::vector<AttentionForm> forms = {AttentionForm::kFull,
                                      AttentionForm::kState};
  if (config.conv_width > 0) forms.push_back(AttentionForm::kNoConv);
  if (config.gate) forms.push_back(AttentionForm::kNoGate);
  if (config.silu_values) forms.push_back(AttentionForm::kNoActivation);
  forms.push_back(AttentionForm::kNoNorm);
  return forms;
}

}  // namespace

LinearAttentionConfig ReadLinearAttention(HfConfig& file, int64_t hidden_ratio,
                                          bool short_conv) {
  LinearAttentionConfig config;
  config.vocabulary = file.RequiredInt("vocab_size", 1, kMaxSize);
  config.hidden = file.RequiredInt("hidden_size", 1, kMaxSize);
  config.num_layers = file.RequiredInt("num_hidden_layers", 1, 4096);
  config.mlp = file.Int("intermediate_size", 0, 1, kMaxSize);
  if (config.mlp == 0) {
    const double ratio =
        file.Double("hidden_ratio", static_cast<double>(hidden_ratio));
    const double wanted = static_cast<double>(config.hidden) * ratio * 2 / 3;
    if (wanted >= 1 && wanted <= kMaxSize) {
      // Rounded up to a multiple of 256.
      config.mlp = (static_cast<int64_t>(wanted) + 255) / 256 * 256;
    } else {
      file.AddError("hidden_ratio", "makes the MLP too small or too wide");
    }
  }
  if (file.Bool("use_short_conv", short_conv)) {
    config.conv_width = file.Int("conv_size", 4, 1, kernels::kMaxConvWidth);
    config.conv_bias = file.Bool("conv_bias", false);
  }
  config.epsilon = file.Double("norm_eps", 1e-6);
  config.norm_epsilon = config.epsilon;
  config.tied_head = file.Bool("tie_word_embeddings", false);
  if (file.String("hidden_act", "swish") != "swish") {
    file.AddError("hidden_act", "must be \"swish\"");
  }
  if (file.Has("attn")) {
    file.AddError("attn",
                  "must be null: hybrids with softmax attention are "
                  "not supported");
  }
  return config;
}

void RequireValue(HfConfig& file, const char* field, bool value) {
  if (file.Bool(field, value) == value) return;
  file.AddError(field, value ? "must be true: it has no effect"
                             : "must be false: it has no effect");
}

void ReadExpandedHeads(HfConfig& file, int64_t num_heads, double expand_k,
                       double expand_v, LinearAttentionConfig& config) {
  config.num_heads = file.Int("num_heads", num_heads, 1, kMaxSize);
  config.num_key_heads = config.num_heads;
  const auto head_size = [&](const char* field, double fallback) {
    const double width =
        file.Double(field, fallback) * static_cast<double>(config.hidden);
    if (width >= 1 && width <= kMaxSize) {
      const int64_t whole = static_cast<int64_t>(width);
      if (whole % config.num_heads == 0) return whole / config.num_heads;
    }
    file.AddError(field, "times hidden_size must be a multiple of num_heads");
    return int64_t{1};
  };
  config.key_size = head_size("expand_k", expand_k);
  config.value_size = head_size("expand_v", expand_v);
  if (config.key_size > kernels::kMaxStateSize) {
    file.AddError("expand_k", absl::StrCat("makes heads of ", config.key_size,
                                           " keys, must be at most ",
                                           kernels::kMaxStateSize));
  }
}

void ReadGatedHeads(HfConfig& file, int64_t num_heads, double expand_k,
                    double expand_v, LinearAttentionConfig& config) {
  ReadExpandedHeads(file, num_heads, expand_k, expand_v, config);
  if (file.Int("num_kv_heads", config.num_heads, 1, kMaxSize) !=
      config.num_heads) {
    file.AddError("num_kv_heads",
                  "must be num_heads or null: shared keys and "
                  "values are not supported");
  }
  if (file.Has("feature_map")) {
    file.AddError("feature_map", "must be null: none is supported");
  }
  config.gate = file.Bool("use_output_gate", true);
  config.norm_weight = file.Bool("elementwise_affine", true);
}

absl::StatusOr<std::unique_ptr<const Network>> BuildLinearAttention(
    const char* architecture, const LinearAttentionConfig& given,
    WeightReader& reader, const TakeRecurrence& take) {
  LinearAttentionConfig config = given;
  // flash-linear-attention's models do not pass conv_bias on to their layers:
  // the weights know whether there is one.
  config.conv_bias =
      config.conv_bias && reader.Has("model.layers.0.attn.q_conv1d.bias");
  const std::vector<int64_t> table = {config.vocabulary, config.hidden};
  const at::Tensor embeddings = reader.Take({"model.embeddings.weight"}, table);
  const at::Tensor final_norm =
      reader.Take({"model.norm.weight"}, {config.hidden});
  const at::Tensor head =
      config.tied_head ? embeddings : reader.Take({"lm_head.weight"}, table);
  std::vector<LayerWeights> layers;
  for (int64_t index = 0; index < config.num_layers; ++index) {
    const WeightReader::Layer reading(reader, index);
    LayerReader layer(config, index, reader);
    layers.push_back(layer.Read());
    layers.back().make_recurrence = take(index, layer.prefix());
  }
  LIMPID_RETURN_IF_ERROR(reader.status());

  ResidualParts parts;
  for (LayerWeights& w : layers) {
    Prepare(config, reader, w);
    parts.layers.push_back(
        std::make_unique<LinearAttentionLayer>(config, std::move(w)));
  }
  parts.info.architecture = architecture;
  parts.info.experimental = true;
  parts.info.hidden_size = config.hidden;
  parts.info.state_size = config.key_size;
  parts.info.vocabulary_size = config.vocabulary;
  parts.info.forms = FormsOf(config);
  parts.SetWeights(reader);
  parts.mean_embedding = embeddings.mean(0);
  parts.embed = TokenEmbedding(embeddings);
  parts.head = [=, epsilon = config.epsilon](const at::Tensor& stream,
                                             const Pass& pass) {
    return Project(RmsNorm(stream, final_norm, epsilon, pass), head, pass);
  };
  return MakeResidualNetwork(std::move(parts));
}

int64_t SplitOfHead(int64_t value_size) {
  int64_t split = 1;
  while (value_size % split != 0 ||
         value_size / split > kernels::kMaxStateSize) {
    ++split;
  }
  return split;
}

at::Tensor NormalizeL2(const at::Tensor& x) {
  return x * at::rsqrt(x.square().sum(-1, /*keepdim=*/true) + 1e-6);
}

at::Tensor RepeatHeads(const at::Tensor& x, int64_t count) {
  return x.unsqueeze(3)
      .expand({-1, -1, -1, count, -1})
      .flatten(/*start_dim=*/2, /*end_dim=*/3);
}

FrozenRecurrence DeltaRule(const at::Tensor& query, const at::Tensor& key,
                           const at::Tensor& strength,
                           const at::Tensor& decay) {
  FrozenRecurrence recurrence;
  recurrence.query = query;
  recurrence.key = key * strength;
  recurrence.decay = decay.expand_as(key);
  recurrence.left = recurrence.key * -decay;
  recurrence.right = key;
  return recurrence;
}

}  // namespace limpid
