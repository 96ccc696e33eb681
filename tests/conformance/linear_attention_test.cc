// SPDX-License-Identifier: Apache-2.0
//
// GLA, RetNet, HGRN2 and the DeltaNets against loops written straight from the
// naive recurrences of flash-linear-attention 0.4.0: a recurrence that is wrong
// but consistent would pass all other tests.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/reduce/sinks.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

using Json = nlohmann::json;

// Random tensors that can be looked up afterwards.
class NamedWeights final : public WeightReader {
 public:
  NamedWeights() : WeightReader({at::kCPU, at::kDouble}) {}

  at::Tensor Take(const std::vector<std::string>& names,
                  const std::vector<int64_t>& shape) override {
    at::Tensor tensor = at::empty(shape, at::kDouble);
    std::uniform_real_distribution<double> uniform(-0.8, 0.8);
    double* const data = tensor.mutable_data_ptr<double>();
    for (int64_t i = 0; i < tensor.numel(); ++i) data[i] = uniform(random_);
    for (const std::string& name : names) taken_[name] = tensor;
    return Keep(tensor);
  }
  absl::Status status() const override { return absl::OkStatus(); }
  bool Has(const std::string&) const override { return true; }
  std::vector<int64_t> ShapeOf(const std::vector<std::string>&) const override {
    return {};
  }
  // Undefined if the network has no such tensor.
  at::Tensor Find(const std::string& name) const {
    const auto found = taken_.find(name);
    return found == taken_.end() ? at::Tensor() : found->second;
  }

 private:
  std::mt19937_64 random_{5};
  std::map<std::string, at::Tensor> taken_;
};

// All [H, L, n], strength [H, L, 1], g [H, L, n] or [H, L, 1]: logarithm of the
// decay. The naive recurrences in terms of one sequence:

at::Tensor NaiveGla(const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& g, const at::Tensor& v) {
  at::Tensor state = at::zeros({q.size(0), q.size(2), v.size(2)}, at::kDouble);
  std::vector<at::Tensor> out;
  for (int64_t i = 0; i < q.size(1); ++i) {
    state = state * g.select(1, i).exp().unsqueeze(-1) +
            k.select(1, i).unsqueeze(-1) * v.select(1, i).unsqueeze(1);
    out.push_back((q.select(1, i).unsqueeze(-1) * state).sum(1));
  }
  return at::stack(out, 1) / std::sqrt(static_cast<double>(q.size(2)));
}

at::Tensor NaiveRetention(const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v) {
  at::Tensor out = at::zeros_like(v);
  for (int64_t h = 0; h < q.size(0); ++h) {
    const double rate = 1 - std::pow(2.0, -5.0 - static_cast<double>(h));
    for (int64_t i = 0; i < q.size(1); ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        out[h][i] += at::dot(q[h][i], k[h][j]) *
                     std::pow(rate, static_cast<double>(i - j)) * v[h][j];
      }
    }
  }
  return out / std::sqrt(static_cast<double>(q.size(2)));
}

at::Tensor NaiveDelta(const at::Tensor& q, const at::Tensor& k,
                      const at::Tensor& strength, const at::Tensor& g,
                      const at::Tensor& v) {
  at::Tensor state = at::zeros({q.size(0), q.size(2), v.size(2)}, at::kDouble);
  std::vector<at::Tensor> out;
  for (int64_t i = 0; i < q.size(1); ++i) {
    const at::Tensor key = k.select(1, i).unsqueeze(-1);
    state = state * g.select(1, i).exp().unsqueeze(-1);
    const at::Tensor change =
        (v.select(1, i) - (state * key).sum(1)) * strength.select(1, i);
    state = state + key * change.unsqueeze(1);
    out.push_back((q.select(1, i).unsqueeze(-1) * state).sum(1));
  }
  return at::stack(out, 1) / std::sqrt(static_cast<double>(q.size(2)));
}

at::Tensor Rms(const at::Tensor& x, double epsilon, const at::Tensor& weight) {
  const at::Tensor normed = x / at::sqrt((x * x).mean(-1, true) + epsilon);
  return weight.defined() ? normed * weight : normed;
}

at::Tensor UnitKeys(const at::Tensor& x) {
  return x / at::sqrt((x * x).sum(-1, true) + 1e-6);
}

// Rotates heads [H, L, n] with complex numbers.
at::Tensor Rotated(const at::Tensor& x) {
  at::Tensor out = at::empty_like(x);
  const int64_t half = x.size(2) / 2;
  for (int64_t i = 0; i < x.size(1); ++i) {
    for (int64_t n = 0; n < half; ++n) {
      const double angle = static_cast<double>(i) *
                           std::pow(10000.0, -static_cast<double>(n) /
                                                 static_cast<double>(half));
      const at::Tensor a = x.select(1, i).select(1, n);
      const at::Tensor b = x.select(1, i).select(1, n + half);
      out.select(1, i).select(1, n).copy_(a * std::cos(angle) -
                                          b * std::sin(angle));
      out.select(1, i)
          .select(1, n + half)
          .copy_(a * std::sin(angle) + b * std::cos(angle));
    }
  }
  return out;
}

// A layer of one sequence from its weights.
struct NaiveLayer {
  const Json& config;
  const NamedWeights& weights;
  const int64_t index;
  at::Tensor n;  // [L, E]: normed input

  // What the values become, [H, L, P] from [H, L, P]. Linear.
  std::function<at::Tensor(const at::Tensor& v)> recurrence;
  at::Tensor value;  // [H, L, P]

  at::Tensor Weight(const std::string& name) const {
    return weights.Find(absl::StrCat("model.layers.", index, ".", name));
  }
  bool Flag(const char* name, bool fallback) const {
    return config.value(name, fallback);
  }
  at::Tensor Projected(const std::string& name) const {
    return at::matmul(n, Weight(absl::StrCat("attn.", name)).t());
  }
  // [H, L, n], projected and convolved.
  at::Tensor Branch(const std::string& letter, int64_t heads) const {
    at::Tensor x = Projected(letter + "_proj.weight");
    const at::Tensor filter = Weight("attn." + letter + "_conv1d.weight");
    if (filter.defined()) {
      const at::Tensor bias = Weight("attn." + letter + "_conv1d.bias");
      x = at::conv1d(
              x.t().unsqueeze(0), filter,
              bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt,
              /*stride=*/1, /*padding=*/filter.size(2) - 1,
              /*dilation=*/1, /*groups=*/x.size(1))[0]
              .narrow(1, 0, x.size(0))
              .t();
    }
    return ByHead(x, heads);
  }
  static at::Tensor ByHead(const at::Tensor& x, int64_t heads) {
    return x.reshape({x.size(0), heads, -1}).transpose(0, 1);
  }
  void Prepare();
  void PrepareDelta(int64_t heads);
};

void NaiveLayer::Prepare() {
  const std::string type = config["model_type"];
  if (type == "hgrn2") {
    const int64_t heads =
        config.value("hidden_size", 0) / config.value("expand_ratio", 0);
    const at::Tensor q = at::silu(Branch("q", heads));
    at::Tensor g = at::log_sigmoid(Branch("f", heads));
    if (Flag("use_lower_bound", true) && index > 0) {
      const at::Tensor shares =
          at::softmax(weights.Find("model.lower_bounds"), 0);
      const at::Tensor bound = ByHead(
          (at::cumsum(shares, 0) - shares[0]).narrow(0, index, 1), heads);
      g = at::logaddexp(bound.log(), at::log1p(-bound) + g);
    }
    const at::Tensor k = 1 - g.exp();
    value = Branch("i", heads);
    recurrence = [=](const at::Tensor& v) { return NaiveGla(q, k, g, v); };
    return;
  }
  const int64_t heads = config["num_heads"];
  if (type == "delta_net" || type == "gated_deltanet") {
    PrepareDelta(heads);
    return;
  }
  const bool conv = Flag("use_short_conv", false);
  const auto branch = [&](const char* letter) {
    const at::Tensor x = Branch(letter, heads);
    return conv ? at::silu(x) : x;
  };
  at::Tensor q = branch("q"), k = branch("k");
  value = branch("v");
  if (type == "retnet") {
    q = Rotated(q);
    k = Rotated(k);
    recurrence = [=](const at::Tensor& v) { return NaiveRetention(q, k, v); };
    return;
  }
  at::Tensor g =
      at::log_sigmoid(at::matmul(Projected("gk_proj.0.weight"),
                                 Weight("attn.gk_proj.1.weight").t()) +
                      Weight("attn.gk_proj.1.bias"));
  g = ByHead(g / 16, heads);
  if (config.contains("clamp_min")) {
    g = at::clamp_min(g, config["clamp_min"].get<double>());
  }
  recurrence = [=](const at::Tensor& v) { return NaiveGla(q, k, g, v); };
}

void NaiveLayer::PrepareDelta(int64_t heads) {
  const bool gated = config["model_type"] == "gated_deltanet";
  const int64_t value_heads = config.value("num_v_heads", heads);
  const std::string activation = config.value("qk_activation", "silu");
  const auto keys = [&](const char* letter) {
    at::Tensor x = Branch(letter, heads);
    if (activation == "silu") x = at::silu(x);
    if (activation == "relu") x = at::relu(x);
    if (activation == "elu") x = at::elu(x) + 1;
    x = config.value("qk_norm", "l2") == "sum" ? x / x.sum(-1, true)
                                               : UnitKeys(x);
    std::vector<at::Tensor> shared;
    for (int64_t h = 0; h < value_heads; ++h) {
      shared.push_back(x[h * heads / value_heads]);
    }
    return at::stack(shared);
  };
  const at::Tensor q = keys("q"), k = keys("k");
  value = at::silu(Branch("v", value_heads));
  at::Tensor strength = at::ones({value_heads, n.size(0), 1}, at::kDouble);
  if (Flag("use_beta", true)) {
    strength = ByHead(at::sigmoid(Projected("b_proj.weight")), value_heads);
  }
  if (Flag("allow_neg_eigval", false)) strength = strength * 2;
  at::Tensor g = at::zeros_like(strength);
  if (gated) {
    g = ByHead(
        -Weight("attn.A_log").exp() *
            at::softplus(Projected("a_proj.weight") + Weight("attn.dt_bias")),
        value_heads);
  }
  recurrence = [=](const at::Tensor& v) {
    return NaiveDelta(q, k, strength, g, v);
  };
}

// A whole network of one sequence, [L, E] to scores [L, V].
at::Tensor NaiveScores(const Json& config, const NamedWeights& weights,
                       const at::Tensor& embeddings,
                       const std::function<void(const NaiveLayer&)>& look) {
  const std::string type = config["model_type"];
  const double epsilon = config.value("norm_eps", 1e-6);
  at::Tensor stream = embeddings;
  const int64_t num_layers = config["num_hidden_layers"];
  for (int64_t index = 0; index < num_layers; ++index) {
    NaiveLayer layer{config, weights, index, {}, {}, {}};
    layer.n = Rms(stream, epsilon, layer.Weight("attn_norm.weight"));
    layer.Prepare();
    look(layer);
    at::Tensor out = layer.recurrence(layer.value).transpose(0, 1);
    const std::string norm = absl::StrContains(type, "delta")
                                 ? "attn.o_norm.weight"
                                 : "attn.g_norm.weight";
    const at::Tensor weight = layer.Weight(norm);
    out = type == "hgrn2" ? Rms(out.flatten(1), 1e-5, weight)
                          : Rms(out, epsilon, weight).flatten(1);
    if (layer.Weight("attn.g_proj.weight").defined()) {
      out = out * at::silu(layer.Projected("g_proj.weight"));
    }
    stream = stream + at::matmul(out, layer.Weight("attn.o_proj.weight").t());
    const at::Tensor m = Rms(stream, epsilon, layer.Weight("mlp_norm.weight"));
    const auto mlp = [&](const at::Tensor& x, const char* name) {
      return at::matmul(
          x, layer.Weight(absl::StrCat("mlp.", name, "_proj.weight")).t());
    };
    stream = stream + mlp(at::silu(mlp(m, "gate")) * mlp(m, "up"), "down");
  }
  const bool tied = config.value("tie_word_embeddings", false);
  return at::matmul(
      Rms(stream, epsilon, weights.Find("model.norm.weight")),
      weights.Find(tied ? "model.embeddings.weight" : "lm_head.weight").t());
}

// Configurations beside the tiny ones.
const std::map<std::string, std::vector<std::string>>& MoreConfigs() {
  static const auto* const configs =
      new std::map<std::string, std::vector<std::string>>{
          // More values in a head than a kernel's head has.
          {"gla", {R"({"model_type": "gla", "vocab_size": 5, "hidden_size": 8,
                "num_hidden_layers": 1, "num_heads": 2, "expand_v": 65,
                "intermediate_size": 5})"}},
          {"gated_deltanet",
           {R"({"model_type": "gated_deltanet", "vocab_size": 5,
                "hidden_size": 8, "num_hidden_layers": 1, "num_heads": 1,
                "num_v_heads": 2, "head_dim": 2, "expand_v": 150,
                "intermediate_size": 5})"}},
          {"delta_net",
           {R"({"model_type": "delta_net", "vocab_size": 5, "hidden_size": 8,
                "num_hidden_layers": 2, "num_heads": 2, "use_gate": true,
                "qk_activation": "relu", "intermediate_size": 5})",
            R"({"model_type": "delta_net", "vocab_size": 5, "hidden_size": 8,
                "num_hidden_layers": 2, "num_heads": 2,
                "qk_activation": "identity", "intermediate_size": 5})"}}};
  return *configs;
}

std::vector<testing::TinyCase> Cases() {
  std::vector<testing::TinyCase> cases;
  for (const ArchitectureSpec& spec : ListedArchitectures()) {
    for (const char* id :
         {"gla", "retnet", "hgrn2", "delta_net", "gated_deltanet"}) {
      if (spec.id != id) continue;
      std::vector<std::string> configs = spec.tiny_configs;
      const auto more = MoreConfigs().find(id);
      if (more != MoreConfigs().end()) {
        configs.insert(configs.end(), more->second.begin(), more->second.end());
      }
      for (size_t i = 0; i < configs.size(); ++i) {
        cases.push_back({&spec, configs[i], absl::StrCat(id, "_", i)});
      }
    }
  }
  return cases;
}

double RelativeDifference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item().toDouble();
}

class LinearAttentionTest : public ::testing::TestWithParam<testing::TinyCase> {
};

TEST_P(LinearAttentionTest, IsTheNaiveRecurrence) {
  constexpr int64_t kLength = 19;
  constexpr double kTolerance = 1e-11;
  const Json config = Json::parse(GetParam().config);
  auto file = HfConfig::Parse(GetParam().config, "config.json");
  ASSERT_TRUE(file.ok()) << file.status();
  NamedWeights weights;
  const auto network = GetParam().spec->build(*file, weights);
  ASSERT_TRUE(network.ok()) << network.status();
  const c10::NoGradGuard no_gradients;
  const at::Tensor embeddings =
      (*network)->Embed(testing::RandomInput(**network, 1, kLength, 4));

  std::vector<at::Tensor> outputs, matrices;  // [L, D] and [D, L, L]
  const MatrixForm state{AttentionForm::kState, false};
  const auto scores = (*network)->Forward(
      embeddings, {},
      [&](int64_t, int64_t, const BlockAttention& attention) {
        outputs.push_back(attention.Map(state).output.clone());
        const RowRange rows{0, kLength};
        ChannelCollector collector({}, attention, rows);
        const absl::Status status =
            attention.Visit(state, rows, collector, CancelToken());
        matrices.push_back(collector.Finish());
        return status;
      },
      CancelToken());
  ASSERT_TRUE(scores.ok()) << scores.status();

  double largest = 0;
  const auto compare = [&](const char* what, const at::Tensor& ours,
                           const at::Tensor& naive) {
    ASSERT_EQ(ours.sizes(), naive.sizes()) << what;
    const double difference = RelativeDifference(ours, naive);
    EXPECT_LE(difference, kTolerance) << what;
    largest = std::max(largest, difference);
  };
  const at::Tensor expected =
      NaiveScores(config, weights, embeddings[0], [&](const NaiveLayer& layer) {
        const at::Tensor& value = layer.value;
        compare("output", outputs.at(layer.index),
                layer.recurrence(value).transpose(0, 1).flatten(1));
        // Values that are one at one position show a column of the matrix.
        const at::Tensor columns = layer.recurrence(
            at::eye(kLength, at::kDouble).expand({value.size(0), -1, -1}));
        compare("matrix", matrices.at(layer.index),
                columns.repeat_interleave(value.size(2), 0));
      });
  compare("scores", (*scores)[0], expected);
  std::printf("figure: %s: largest difference from naive recurrence %.1e\n",
              GetParam().name.c_str(), largest);
}

INSTANTIATE_TEST_SUITE_P(
    Architectures, LinearAttentionTest, ::testing::ValuesIn(Cases()),
    [](const ::testing::TestParamInfo<testing::TinyCase>& info) {
      return info.param.name;
    });

}  // namespace
}  // namespace limpid
