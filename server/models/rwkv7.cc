// SPDX-License-Identifier: Apache-2.0
#include "server/models/rwkv7.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/models/normed_heads.h"
#include "server/models/rwkv.h"

namespace limpid::architectures::rwkv7 {
namespace {

// A projection through a narrow middle: up(activation(down(x))) + bias.
struct LowRank {
  at::Tensor down;  // [r, E]
  at::Tensor up;    // [D, r]
  at::Tensor bias;  // [D] or undefined

  at::Tensor Run(const at::Tensor& x,
                 at::Tensor (*activation)(const at::Tensor&),
                 const Pass& pass) const {
    const at::Tensor middle = Project(x, down, pass);
    return Project(activation ? activation(middle) : middle, up, bias, pass);
  }
};

struct LayerWeights {
  Affine norm;
  HeadNorm head_norm;
  at::Tensor mix_receptance, mix_decay, mix_key, mix_value, mix_rate,
      mix_gate;                            // [1, 1, E]
  at::Tensor receptance, key, value;       // [D, E]
  LowRank decay, rate, first_value, gate;  // first_value: not in layer 0
  at::Tensor removal;                      // [D]: k_k
  at::Tensor key_rate;                     // [D]: k_a
  at::Tensor bonus;                        // [H, S]: r_k
  at::Tensor out;                          // [E, D]
  Affine mlp_norm;
  at::Tensor mlp_mix;    // [E]
  at::Tensor mlp_key;    // [F, E]
  at::Tensor mlp_value;  // [E, F]
};

class Rwkv7Layer final : public Layer {
 public:
  Rwkv7Layer(double epsilon, LayerWeights weights)
      : epsilon_(epsilon), weights_(std::move(weights)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override;
  int64_t num_channels() const override { return weights_.key.size(0); }
  int64_t channels_per_head() const override { return weights_.bonus.size(1); }
  int64_t num_heads() const override { return weights_.bonus.size(0); }
  LayerCost Cost(int64_t length) const override {
    const int64_t inner = weights_.key.size(0), hidden = weights_.key.size(1);
    const int64_t mlp = weights_.mlp_key.size(0);
    const int64_t ranks =
        weights_.decay.down.size(0) + weights_.rate.down.size(0) +
        weights_.gate.down.size(0) +
        (weights_.first_value.down.defined() ? weights_.first_value.down.size(0)
                                             : 0);
    LayerCost cost;
    cost.forward = length * (12 * hidden + 24 * inner + 4 * ranks + 4 * mlp);
    cost.gradient = length * (28 * hidden + 44 * inner + 6 * ranks + 4 * mlp);
    cost.backward = length * (12 * hidden + 24 * inner + 4 * ranks + 4 * mlp);
    cost.flops = length * (8.0 * hidden * inner + 4.0 * hidden * ranks +
                           4.0 * hidden * mlp + 200.0 * inner);
    AddNormedHeadsCost(length, inner, channels_per_head(), cost);
    return cost;
  }

 private:
  const double epsilon_;
  const LayerWeights weights_;
};

at::Tensor Rwkv7Layer::Run(const at::Tensor& stream, Pass& pass) const {
  const LayerWeights& w = weights_;
  const at::Tensor n = LayerNorm(stream, w.norm, epsilon_, pass);
  const at::Tensor shifted = Shift(n, pass.packing);
  const auto mixed = [&](const at::Tensor& mix) {
    return MixWeighted(shifted, n, mix);
  };
  const auto by_head = [&](const at::Tensor& tensor) {
    return tensor.view(
        {tensor.size(0), tensor.size(1), w.bonus.size(0), w.bonus.size(1)});
  };
  const at::Tensor value_mix = mixed(w.mix_value);
  at::Tensor value = Project(value_mix, w.value, pass);
  if (pass.layer() == 0) {
    pass.first_values = value;
  } else {
    const at::Tensor share =
        pass.Factor(at::sigmoid(w.first_value.Run(value_mix, nullptr, pass)));
    value = value + (pass.first_values - value) * share;
  }
  const at::Tensor raw_key = Project(mixed(w.mix_key), w.key, pass);
  const at::Tensor rate =
      at::sigmoid(w.rate.Run(mixed(w.mix_rate), nullptr, pass));
  // What is removed from the state: a unit vector per head.
  const at::Tensor removal = by_head(raw_key * w.removal);
  const at::Tensor removed = pass.Factor(
      removal / removal.norm(2, -1, /*keepdim=*/true).clamp_min(1e-12));
  FrozenRecurrence recurrence;
  recurrence.query = pass.Factor(
      by_head(Project(mixed(w.mix_receptance), w.receptance, pass)));
  recurrence.key =
      pass.Factor(by_head(raw_key * (1 + (rate - 1) * w.key_rate)));
  recurrence.decay = pass.Factor(by_head(
      at::exp(at::sigmoid(w.decay.Run(mixed(w.mix_decay), at::tanh, pass)) *
              -std::exp(-0.5))));
  recurrence.left = pass.Factor(-removed * by_head(rate));
  recurrence.right = removed;
  const at::Tensor bonus =
      (recurrence.query * recurrence.key * w.bonus).sum(-1, /*keepdim=*/true);
  const at::Tensor direct = (bonus * by_head(value)).reshape(value.sizes());
  const at::Tensor gate =
      pass.Factor(w.gate.Run(mixed(w.mix_gate), at::sigmoid, pass));
  const at::Tensor output =
      RunNormedHeads(recurrence, value, direct, gate, w.head_norm, stream,
                     {w.out, at::Tensor()}, pass);
  const at::Tensor after =
      stream + pass.BlockOutput(Project(output, w.out, pass));
  const at::Tensor m = LayerNorm(after, w.mlp_norm, epsilon_, pass);
  return after + Project(SquaredRelu(Project(MixWeighted(Shift(m, pass.packing),
                                                         m, w.mlp_mix),
                                             w.mlp_key, pass),
                                     pass),
                         w.mlp_value, pass);
}

struct Config {
  RwkvSizes sizes;
  int64_t head_size = 0;
  int64_t mlp = 0;  // F; 0: told by the weights
  double head_epsilon = 0;
  bool fla = false;  // layout of flash-linear-attention, not BlinkDL's
  bool first_norm = true;
  bool norm_bias = true;
  bool tied_head = false;
};

absl::StatusOr<Config> ReadConfig(HfConfig& file, const WeightReader& reader) {
  Config config;
  config.sizes = ReadRwkvSizes(file, "norm_eps");
  config.sizes.last_epsilon = config.sizes.epsilon;
  config.fla = !reader.Has("blocks.0.att.x_r");
  config.head_size = file.Int("head_dim", 64, 1, kernels::kMaxStateSize);
  if (config.sizes.inner % config.head_size != 0) {
    file.AddError("head_dim", "must divide the hidden size");
  }
  // BlinkDL's code has a constant, flash-linear-attention a product.
  config.head_epsilon =
      config.fla ? static_cast<double>(config.head_size) * config.sizes.epsilon
                 : 64e-5;
  config.mlp = file.Int("intermediate_size", 0, 0, int64_t{1} << 26);
  if (config.mlp == 0 && file.Has("hidden_ratio")) {
    const double ratio = file.Double("hidden_ratio", 4);
    config.mlp =
        static_cast<int64_t>(ratio * static_cast<double>(config.sizes.hidden));
    // flash-linear-attention rounds up to a multiple of 32.
    config.mlp = (config.mlp + 31) / 32 * 32;
  }
  config.first_norm = file.Bool("norm_first", true);
  config.norm_bias = file.Bool("norm_bias", true);
  config.tied_head = file.Bool("tie_word_embeddings", false);
  const std::string activation = file.String("hidden_act", "sqrelu");
  if (activation != "sqrelu") {
    file.AddError("hidden_act", "must be \"sqrelu\"");
  }
  LIMPID_RETURN_IF_ERROR(file.status());
  return config;
}

// Takes a layer's tensors in either layout.
class LayerReader {
 public:
  LayerReader(const Config& config, int64_t index, WeightReader& reader)
      : config_(config),
        fla_(absl::StrCat("model.layers.", index, ".")),
        blinkdl_(absl::StrCat("blocks.", index, ".")),
        reader_(reader) {}

  at::Tensor Take(const std::string& fla, const std::string& blinkdl,
                  const std::vector<int64_t>& shape) {
    return reader_.Take({config_.fla ? fla_ + fla : blinkdl_ + blinkdl}, shape);
  }
  // [n] where BlinkDL stores [1, 1, n].
  at::Tensor Vector(const std::string& fla, const std::string& blinkdl,
                    int64_t size) {
    if (config_.fla) return Take(fla, blinkdl, {size});
    const at::Tensor taken = Take(fla, blinkdl, {1, 1, size});
    return taken.defined() ? taken.view({size}) : taken;
  }
  Affine Norm(const std::string& fla, const std::string& blinkdl,
              int64_t size) {
    return TakeAffine(reader_, {config_.fla ? fla_ + fla : blinkdl_ + blinkdl},
                      size, config_.norm_bias || !config_.fla);
  }
  LowRank Low(const std::string& letter, bool bias) {
    const int64_t hidden = config_.sizes.hidden, inner = config_.sizes.inner;
    LowRank low;
    if (config_.fla) {
      const std::string lora = absl::StrCat("attn.", letter, "_lora.lora.");
      const std::vector<int64_t> shape =
          reader_.ShapeOf({fla_ + lora + "0.weight"});
      const int64_t rank = shape.empty() ? 1 : shape[0];
      low.down = Take(lora + "0.weight", "", {rank, hidden});
      low.up = Take(lora + "2.weight", "", {inner, rank});
      if (bias) low.bias = Take(lora + "2.bias", "", {inner});
      return low;
    }
    const std::string stem = "att." + letter;
    const std::vector<int64_t> shape = reader_.ShapeOf({blinkdl_ + stem + "1"});
    const int64_t rank = shape.size() == 2 ? shape[1] : 4;
    low.down = Take("", stem + "1", {hidden, rank});
    low.up = Take("", stem + "2", {rank, inner});
    if (low.down.defined()) low.down = low.down.t().contiguous();
    if (low.up.defined()) low.up = low.up.t().contiguous();
    if (bias) low.bias = Vector("", stem + "0", inner);
    return low;
  }
  int64_t MlpWidth() const {
    if (config_.mlp > 0) return config_.mlp;
    const std::vector<int64_t> shape = reader_.ShapeOf(
        {config_.fla ? fla_ + "ffn.key.weight" : blinkdl_ + "ffn.key.weight"});
    return shape.empty() ? 4 * config_.sizes.hidden : shape.front();
  }

 private:
  const Config& config_;
  const std::string fla_, blinkdl_;
  WeightReader& reader_;
};

LayerWeights ReadLayer(const Config& config, int64_t index,
                       WeightReader& weights) {
  const int64_t hidden = config.sizes.hidden, inner = config.sizes.inner;
  const int64_t heads = inner / config.head_size;
  LayerReader reader(config, index, weights);
  const auto mix = [&](const char* letter) {
    const std::string name = absl::StrCat("x_", letter);
    return reader.Take("attn." + name, "att." + name, {1, 1, hidden});
  };
  LayerWeights w;
  w.norm = reader.Norm("attn_norm", "ln1", hidden);
  w.head_norm.affine = reader.Norm("attn.g_norm", "att.ln_x", inner);
  w.head_norm.epsilon = config.head_epsilon;
  w.mix_receptance = mix("r");
  w.mix_decay = mix("w");
  w.mix_key = mix("k");
  w.mix_value = mix("v");
  w.mix_rate = mix("a");
  w.mix_gate = mix("g");
  w.receptance = reader.Take("attn.r_proj.weight", "att.receptance.weight",
                             {inner, hidden});
  w.key = reader.Take("attn.k_proj.weight", "att.key.weight", {inner, hidden});
  w.value =
      reader.Take("attn.v_proj.weight", "att.value.weight", {inner, hidden});
  w.out =
      reader.Take("attn.o_proj.weight", "att.output.weight", {hidden, inner});
  w.decay = reader.Low("w", true);
  w.rate = reader.Low("a", true);
  w.gate = reader.Low("g", false);
  if (index > 0) w.first_value = reader.Low("v", true);
  w.removal = reader.Vector("attn.k_k", "att.k_k", inner);
  w.key_rate = reader.Vector("attn.k_a", "att.k_a", inner);
  w.bonus = reader.Take("attn.r_k", "att.r_k", {heads, config.head_size});
  const int64_t width = reader.MlpWidth();
  w.mlp_norm = reader.Norm("ffn_norm", "ln2", hidden);
  w.mlp_mix = reader.Vector("ffn.x_k", "ffn.x_k", hidden);
  w.mlp_key = reader.Take("ffn.key.weight", "ffn.key.weight", {width, hidden});
  w.mlp_value =
      reader.Take("ffn.value.weight", "ffn.value.weight", {hidden, width});
  return w;
}

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  LIMPID_ASSIGN_OR_RETURN(const Config config, ReadConfig(file, reader));
  const RwkvFrame frame = TakeRwkvFrame(reader, config.sizes, config.tied_head,
                                        config.first_norm, config.norm_bias);
  std::vector<LayerWeights> layers;
  for (int64_t index = 0; index < config.sizes.num_layers; ++index) {
    const WeightReader::Layer reading(reader, index);
    layers.push_back(ReadLayer(config, index, reader));
  }
  LIMPID_RETURN_IF_ERROR(reader.status());
  ResidualParts parts = RwkvParts(frame, config.sizes, "rwkv7", reader);
  parts.info.state_size = config.head_size;
  parts.info.forms = NormedHeadForms();
  for (LayerWeights& w : layers) {
    parts.layers.push_back(
        std::make_unique<Rwkv7Layer>(config.sizes.epsilon, std::move(w)));
  }
  return MakeResidualNetwork(std::move(parts));
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "rwkv7";
  spec.model_types = {"rwkv7"};
  spec.tiny_configs = {
      R"({"model_type": "rwkv7", "vocab_size": 11, "hidden_size": 8,
          "head_dim": 4, "num_hidden_layers": 3})",
      R"({"model_type": "rwkv7", "vocab_size": 9, "hidden_size": 6,
          "head_dim": 6, "intermediate_size": 7, "num_hidden_layers": 2})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::rwkv7
