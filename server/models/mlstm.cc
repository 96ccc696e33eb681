// SPDX-License-Identifier: Apache-2.0
#include "server/models/mlstm.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/kernels/ops.h"
#include "server/models/linear_attention.h"
#include "server/models/normed_heads.h"
#include "server/models/residual_network.h"

namespace limpid::architectures::mlstm {
namespace {

// exp of it is finite in every compute dtype, and so is that number's inverse.
constexpr double kLargestExponent = 80;

struct Config {
  int64_t vocabulary = 0;  // V
  int64_t hidden = 0;      // E
  int64_t mlp = 0;         // F
  int64_t num_layers = 0;
  int64_t num_heads = 0;  // H
  int64_t keys = 0;       // of all heads together
  int64_t inner = 0;      // D: values of all heads together
  bool use_bias = false;
  bool fused = false;         // weights of several projections in one tensor
  double norm_epsilon = 0;    // of all norms
  double epsilon = 0;         // of the recurrence's normaliser
  double gate_soft_cap = 0;   // 0: none
  double logit_soft_cap = 0;  // 0: none
  bool tied_head = false;

  int64_t key_size() const { return keys / num_heads; }  // N
};

struct Linear {
  at::Tensor weight;  // [n, m]
  at::Tensor bias;    // [n] or undefined

  at::Tensor operator()(const at::Tensor& x, const Pass& pass) const {
    return Project(x, weight, bias, pass);
  }
  // Undefined tensors stay what they are.
  Linear Rows(int64_t begin, int64_t count) const {
    const auto rows = [&](const at::Tensor& tensor) {
      return tensor.defined() ? tensor.narrow(0, begin, count) : tensor;
    };
    return {rows(weight), rows(bias)};
  }
};

struct LayerWeights {
  Affine norm;  // [E], as mlp_norm
  Linear query, key, value, gate;
  Linear input_gate, forget_gate;  // [H, E]
  HeadNorm head_norm;
  Linear out;  // [E, D]
  Affine mlp_norm;
  Linear mlp_gate, mlp_up;  // [F, E]
  Linear mlp_down;          // [E, F]
};

at::Tensor Norm(const at::Tensor& x, const Affine& affine, double epsilon,
                const Pass& pass) {
  return RmsNorm(x, affine.weight, epsilon, pass) + affine.bias;
}

at::Tensor SoftCapped(const at::Tensor& x, double cap) {
  return cap > 0 ? at::tanh(x / cap) * cap : x;
}

// Exponential gates [B, L, H] in terms of a running largest exponent, so that
// no exponential exceeds one: of position i relative to m_i, with
// m_i = max(log f_i + m_(i-1), i_i) and m_(-1) = 0.
struct StableGates {
  at::Tensor forget;  // of the state before
  at::Tensor input;
  at::Tensor floor;  // exp(-m): what the normaliser is at least
};
StableGates Stabilise(const at::Tensor& input, const at::Tensor& forget,
                      const Packing& packing) {
  // Sums over positions, whose digits float32 would lose.
  const at::Tensor exponent = input.to(at::kDouble);
  const at::Tensor log_forget = at::log_sigmoid(forget.to(at::kDouble));
  const std::vector<at::Tensor> exponents = packing.Split(exponent);
  std::vector<at::Tensor> parts = packing.Split(log_forget);
  for (size_t i = 0; i < parts.size(); ++i) {
    const at::Tensor total = parts[i].cumsum(1);
    parts[i] = total + at::clamp_min(
                           std::get<0>(at::cummax(exponents[i] - total, 1)), 0);
  }
  const at::Tensor largest = Packing::Join(parts);
  const auto dtype = input.scalar_type();
  return {at::exp(log_forget + Shift(largest, packing) - largest).to(dtype),
          at::exp(exponent - largest).to(dtype),
          at::exp(at::clamp_max(-largest, kLargestExponent)).to(dtype)};
}

class MlstmLayer final : public Layer {
 public:
  MlstmLayer(const Config& config, LayerWeights weights)
      : config_(config), weights_(std::move(weights)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override;
  int64_t num_channels() const override { return config_.inner; }
  int64_t channels_per_head() const override {
    return config_.inner / config_.num_heads / weights_.head_norm.split;
  }
  int64_t num_heads() const override { return config_.num_heads; }
  LayerCost Cost(int64_t length) const override;

 private:
  // With the normaliser 1 / (max(|sum_j S_ij|, exp(-m_i)) + epsilon) of
  // position i in its query.
  FrozenRecurrence Recurrence(const at::Tensor& normed, const Pass& pass) const;

  const Config config_;
  const LayerWeights weights_;
};

FrozenRecurrence MlstmLayer::Recurrence(const at::Tensor& normed,
                                        const Pass& pass) const {
  const LayerWeights& w = weights_;
  const StableGates gates =
      Stabilise(SoftCapped(w.input_gate(normed, pass), config_.gate_soft_cap),
                SoftCapped(w.forget_gate(normed, pass), config_.gate_soft_cap),
                pass.packing);
  const auto by_head = [&](const at::Tensor& x) {
    return x.view({x.size(0), x.size(1), config_.num_heads, -1});
  };
  FrozenRecurrence recurrence;
  recurrence.query = by_head(w.query(normed, pass)) *
                     std::pow(static_cast<double>(config_.key_size()), -0.5);
  recurrence.key =
      pass.Factor(by_head(w.key(normed, pass)) * gates.input.unsqueeze(-1));
  recurrence.decay =
      pass.Factor(gates.forget.unsqueeze(-1)).expand(recurrence.key.sizes());
  // Values that are all one add up the rows of the matrix.
  const at::Tensor sums = StateScan(
      recurrence, at::ones_like(gates.input).unsqueeze(-1), pass.packing);
  recurrence.query = pass.Factor(
      recurrence.query /
      (at::maximum(sums.abs(), gates.floor.unsqueeze(-1)) + config_.epsilon));
  if (w.head_norm.split > 1) {
    for (at::Tensor* operand :
         {&recurrence.query, &recurrence.key, &recurrence.decay}) {
      *operand = RepeatHeads(*operand, w.head_norm.split);
    }
  }
  return recurrence;
}

at::Tensor MlstmLayer::Run(const at::Tensor& stream, Pass& pass) const {
  const LayerWeights& w = weights_;
  const at::Tensor n = Norm(stream, w.norm, config_.norm_epsilon, pass);
  const FrozenRecurrence recurrence = Recurrence(n, pass);
  const at::Tensor value = w.value(n, pass);
  const at::Tensor gate = pass.Factor(at::sigmoid(w.gate(n, pass)));
  const at::Tensor output =
      RunNormedHeads(recurrence, value, at::Tensor(), gate, w.head_norm, stream,
                     {w.out.weight, w.out.bias}, pass);
  const at::Tensor after = stream + pass.BlockOutput(w.out(output, pass));
  const at::Tensor m = Norm(after, w.mlp_norm, config_.norm_epsilon, pass);
  const at::Tensor mlp_gate = pass.Factor(at::silu(w.mlp_gate(m, pass)));
  return after + w.mlp_down(mlp_gate * w.mlp_up(m, pass), pass);
}

LayerCost MlstmLayer::Cost(int64_t length) const {
  const int64_t hidden = config_.hidden, mlp = config_.mlp;
  const int64_t inner = config_.inner, heads = config_.num_heads;
  const int64_t operands = config_.keys * weights_.head_norm.split;
  LayerCost cost;
  cost.forward = length * (4 * hidden + 4 * operands + 30 * heads + 4 * mlp);
  cost.gradient = length * (8 * hidden + 10 * operands + 50 * heads + 5 * mlp);
  cost.backward = length * (4 * hidden + 8 * operands + 50 * heads + 6 * mlp);
  cost.flops = length * (2.0 * hidden * (2 * config_.keys + 3 * inner) +
                         6.0 * hidden * mlp + 300.0 * heads +
                         40.0 * (hidden + operands + mlp));
  AddNormedHeadsCost(length, inner, config_.key_size(), cost);
  return cost;
}

// Tensors of one layer. Some may be undefined until the reader's status is
// seen.
LayerWeights ReadLayer(const Config& c, int64_t index, WeightReader& reader) {
  const std::string prefix = absl::StrCat("backbone.blocks.", index, ".");
  const auto linear = [&](const std::string& name, int64_t out, int64_t in,
                          bool bias) -> Linear {
    return {reader.Take({prefix + name + ".weight"}, {out, in}),
            reader.TakeIf(bias, {prefix + name + ".bias"}, {out})};
  };
  const auto mixer = [&](const std::string& name, int64_t out,
                         bool gates = false) {
    return linear("mlstm_layer." + name, out, c.hidden, gates || c.use_bias);
  };
  const auto mlp = [&](const std::string& name, int64_t out) {
    return linear("ffn." + name, out, c.hidden, c.use_bias);
  };
  const auto norm = [&](const std::string& name, int64_t size) {
    return TakeAffine(reader, {prefix + name}, size, c.use_bias);
  };
  LayerWeights w;
  w.norm = norm("norm_mlstm", c.hidden);
  if (c.fused) {
    const Linear all = mixer("qkv_opreact", 2 * c.keys + 2 * c.inner);
    w.query = all.Rows(0, c.keys);
    w.key = all.Rows(c.keys, c.keys);
    w.value = all.Rows(2 * c.keys, c.inner);
    w.gate = all.Rows(2 * c.keys + c.inner, c.inner);
    const Linear gates = mixer("ifgate_preact", 2 * c.num_heads, true);
    w.input_gate = gates.Rows(0, c.num_heads);
    w.forget_gate = gates.Rows(c.num_heads, c.num_heads);
    const Linear up = mlp("proj_up_gate_z", 2 * c.mlp);
    w.mlp_gate = up.Rows(0, c.mlp);
    w.mlp_up = up.Rows(c.mlp, c.mlp);
  } else {
    w.query = mixer("q", c.keys);
    w.key = mixer("k", c.keys);
    w.value = mixer("v", c.inner);
    w.gate = mixer("ogate_preact", c.inner);
    w.input_gate = mixer("igate_preact", c.num_heads, true);
    w.forget_gate = mixer("fgate_preact", c.num_heads, true);
    w.mlp_gate = mlp("proj_up_gate", c.mlp);
    w.mlp_up = mlp("proj_up", c.mlp);
  }
  w.head_norm.affine = norm("mlstm_layer.multihead_norm", c.inner);
  w.head_norm.epsilon = c.norm_epsilon;
  w.head_norm.split = SplitOfHead(c.inner / c.num_heads);
  w.out = linear("mlstm_layer.out_proj", c.hidden, c.inner, c.use_bias);
  w.mlp_norm = norm("norm_ffn", c.hidden);
  w.mlp_down = linear("ffn.proj_down", c.hidden, c.mlp, c.use_bias);
  return w;
}

// The field that is there: transformers knows sizes under two names.
int64_t ReadSize(HfConfig& file, const char* name, const char* other,
                 int64_t largest) {
  if (!file.Has(name)) return file.RequiredInt(other, 1, largest);
  const int64_t size = file.RequiredInt(name, 1, largest);
  if (file.Int(other, size, 1, largest) != size) {
    file.AddError(other, absl::StrCat("must be ", name));
  }
  return size;
}

Config ReadConfig(HfConfig& file) {
  Config c;
  c.vocabulary = file.RequiredInt("vocab_size", 1, kMaxSize);
  c.hidden = ReadSize(file, "hidden_size", "embedding_dim", kMaxSize);
  c.num_layers = ReadSize(file, "num_hidden_layers", "num_blocks", 4096);
  c.num_heads = file.Int("num_heads", 8, 1, kMaxSize);
  c.use_bias = file.Bool("use_bias", false);
  c.tied_head = file.Bool("tie_word_embeddings", false);
  c.norm_epsilon = file.Double("norm_eps", 1e-6);
  c.epsilon = file.Double("eps", 1e-6);
  for (const char* field : {"norm_eps", "eps"}) {
    if (!(file.Double(field, 1e-6) >= 0)) {
      file.AddError(field, "must not be negative");
    }
  }
  const auto width = [&](const char* field, double fallback) {
    const double wanted =
        static_cast<double>(c.hidden) * file.Double(field, fallback);
    if (wanted >= 1 && wanted <= kMaxSize) return wanted;
    file.AddError(field, "makes a projection too small or too wide");
    return 1.0;
  };
  const auto heads = [&](const char* field, double fallback) {
    const auto whole = static_cast<int64_t>(width(field, fallback));
    if (whole % c.num_heads == 0) return whole;
    file.AddError(field, "times hidden_size must be a multiple of num_heads");
    return c.num_heads;
  };
  c.keys = heads("qk_dim_factor", 0.5);
  c.inner = heads("v_dim_factor", 1);
  if (c.key_size() > kernels::kMaxStateSize) {
    file.AddError("qk_dim_factor", absl::StrCat("makes heads of ", c.key_size(),
                                                " keys, must be at most ",
                                                kernels::kMaxStateSize));
  }
  const int64_t multiple =
      file.Int("ffn_round_up_to_multiple_of", 64, 1, kMaxSize);
  const double up = width("ffn_proj_factor", 2.667);
  c.mlp = static_cast<int64_t>((up + static_cast<double>(multiple) - 1) /
                               static_cast<double>(multiple)) *
          multiple;
  const auto cap = [&](const char* field, double fallback) {
    if (file.IsNull(field)) return 0.0;
    const double value = file.Double(field, fallback);
    if (!(value > 0)) file.AddError(field, "must be positive or null");
    return value;
  };
  c.gate_soft_cap = cap("gate_soft_cap", 15);
  c.logit_soft_cap = cap("output_logit_soft_cap", 30);
  const std::string mode = file.String("weight_mode", "single");
  c.fused = mode == "fused";
  if (!c.fused && mode != "single") {
    file.AddError("weight_mode", "must be \"single\" or \"fused\"");
  }
  return c;
}

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  const Config config = ReadConfig(file);
  LIMPID_RETURN_IF_ERROR(file.status());
  const std::vector<int64_t> table = {config.vocabulary, config.hidden};
  const at::Tensor embeddings =
      reader.Take({"backbone.embeddings.weight"}, table);
  const at::Tensor final_norm =
      reader.Take({"backbone.out_norm.weight"}, {config.hidden});
  const at::Tensor head =
      config.tied_head ? embeddings : reader.Take({"lm_head.weight"}, table);
  std::vector<LayerWeights> layers;
  for (int64_t index = 0; index < config.num_layers; ++index) {
    const WeightReader::Layer reading(reader, index);
    layers.push_back(ReadLayer(config, index, reader));
  }
  LIMPID_RETURN_IF_ERROR(reader.status());

  ResidualParts parts;
  for (LayerWeights& w : layers) {
    parts.layers.push_back(std::make_unique<MlstmLayer>(config, std::move(w)));
  }
  parts.info.architecture = "mlstm";
  parts.info.hidden_size = config.hidden;
  parts.info.state_size = config.key_size();
  parts.info.vocabulary_size = config.vocabulary;
  parts.info.forms = NormedHeadForms();
  parts.SetWeights(reader);
  parts.mean_embedding = embeddings.mean(0);
  parts.embed = TokenEmbedding(embeddings);
  parts.head = [=, epsilon = config.norm_epsilon](const at::Tensor& stream,
                                                  const Pass& pass) {
    return Project(RmsNorm(stream, final_norm, epsilon, pass), head, pass);
  };
  parts.soft_cap = config.logit_soft_cap;
  return MakeResidualNetwork(std::move(parts));
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "mlstm";
  spec.model_types = {"xlstm"};
  spec.tiny_configs = {
      R"({"model_type": "xlstm", "vocab_size": 11, "hidden_size": 8,
          "num_hidden_layers": 2, "num_heads": 2,
          "ffn_round_up_to_multiple_of": 4})",
      R"({"model_type": "xlstm", "vocab_size": 9, "embedding_dim": 6,
          "num_blocks": 2, "num_heads": 3, "use_bias": true,
          "qk_dim_factor": 1.5, "v_dim_factor": 2.0, "ffn_proj_factor": 1.3,
          "ffn_round_up_to_multiple_of": 1, "weight_mode": "fused",
          "gate_soft_cap": null, "output_logit_soft_cap": null, "eps": 1e-4,
          "norm_eps": 1e-5, "tie_word_embeddings": true})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::mlstm
