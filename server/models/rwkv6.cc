// SPDX-License-Identifier: Apache-2.0
#include "server/models/rwkv6.h"

#include <ATen/ATen.h>

#include <utility>

#include "server/models/normed_heads.h"
#include "server/models/rwkv.h"

namespace limpid::architectures::rwkv6 {
namespace {

// What a mixture of n with its predecessor leans on, in the order in which the
// weights have them.
enum Mixture { kDecay, kKey, kValue, kReceptance, kGate, kMixtures };

struct LayerWeights {
  Affine norm;
  HeadNorm head_norm;
  at::Tensor mix_first;                     // [1, 1, E]
  at::Tensor mix[kMixtures];                // [1, 1, E]
  at::Tensor mix_down, mix_up;              // [E, 5 r], [5, r, E]
  at::Tensor decay;                         // [1, 1, D]
  at::Tensor decay_down, decay_up;          // [E, q], [q, D]
  at::Tensor bonus;                         // [H, S]
  at::Tensor key, value, receptance, gate;  // [D, E]
  at::Tensor out;                           // [E, D]
  RwkvChannelMix channel_mix;
};

class Rwkv6Layer final : public Layer {
 public:
  Rwkv6Layer(double epsilon, LayerWeights weights)
      : epsilon_(epsilon), weights_(std::move(weights)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override;
  int64_t num_channels() const override { return weights_.key.size(0); }
  int64_t channels_per_head() const override { return weights_.bonus.size(1); }
  int64_t num_heads() const override { return weights_.bonus.size(0); }
  LayerCost Cost(int64_t length) const override {
    const int64_t inner = weights_.key.size(0), hidden = weights_.key.size(1);
    LayerCost cost;
    const int64_t ranks =
        weights_.mix_down.size(1) + weights_.decay_down.size(1);
    cost.forward = length * (12 * hidden + 12 * inner + 4 * ranks);
    cost.gradient = length * (28 * hidden + 16 * inner + 4 * ranks);
    cost.backward = length * (12 * hidden + 12 * inner + 4 * ranks);
    cost.flops =
        length * (10.0 * hidden * inner + 4.0 * hidden * ranks + 100.0 * inner);
    AddNormedHeadsCost(length, inner, channels_per_head(), cost);
    weights_.channel_mix.AddCost(length, cost);
    return cost;
  }

 private:
  const double epsilon_;
  const LayerWeights weights_;
};

at::Tensor Rwkv6Layer::Run(const at::Tensor& stream, Pass& pass) const {
  const LayerWeights& w = weights_;
  const at::Tensor n = LayerNorm(stream, w.norm, epsilon_, pass);
  const at::Tensor difference = Shift(n, pass.packing) - n;
  // How far each mixture leans to the predecessor depends on the data.
  const at::Tensor low =
      at::tanh(at::matmul(n + difference * w.mix_first, w.mix_down));
  const int64_t rank = w.mix_up.size(1);
  const auto mixed = [&](Mixture mixture) {
    const at::Tensor lean =
        w.mix[mixture] +
        at::matmul(low.narrow(-1, mixture * rank, rank), w.mix_up[mixture]);
    return n + difference * pass.Factor(lean);
  };
  const at::Tensor value = Project(mixed(kValue), w.value, pass);
  const at::Tensor gate =
      pass.Factor(at::silu(Project(mixed(kGate), w.gate, pass)));
  const auto by_head = [&](const at::Tensor& tensor) {
    return pass.Factor(tensor).view(
        {tensor.size(0), tensor.size(1), w.bonus.size(0), w.bonus.size(1)});
  };
  const at::Tensor log_log_decay =
      w.decay +
      at::matmul(at::tanh(at::matmul(mixed(kDecay), w.decay_down)), w.decay_up);
  FrozenRecurrence recurrence;
  recurrence.query = by_head(Project(mixed(kReceptance), w.receptance, pass));
  recurrence.key = by_head(Project(mixed(kKey), w.key, pass));
  recurrence.decay = by_head(at::exp(-at::exp(log_log_decay)));
  recurrence.diagonal = (recurrence.query * w.bonus * recurrence.key).sum(-1);
  const at::Tensor output =
      RunNormedHeads(recurrence, value, at::Tensor(), gate, w.head_norm, stream,
                     {w.out, at::Tensor()}, pass);
  return w.channel_mix.Run(
      stream + pass.BlockOutput(Project(output, w.out, pass)), epsilon_, pass);
}

LayerWeights ReadLayer(const RwkvSizes& sizes, int64_t head_size, int64_t index,
                       WeightReader& reader) {
  const int64_t hidden = sizes.hidden, inner = sizes.inner;
  const auto names = [&](const std::string& hf, const std::string& blinkdl) {
    return RwkvNames(index, "attention." + hf, "att." + blinkdl);
  };
  const auto same = [&](const std::string& name) { return names(name, name); };
  const std::vector<int64_t> vector = {1, 1, hidden};
  // Ranks are told by the weights alone.
  const auto rank = [&](const char* name, int64_t usual) {
    const std::vector<int64_t> shape = reader.ShapeOf(same(name));
    return shape.size() == 2 ? shape[1] : usual;
  };
  const int64_t mix_rank = rank("time_maa_w1", 5 * 32) / kMixtures;
  const int64_t decay_rank = rank("time_decay_w1", 64);
  LayerWeights w;
  w.norm = TakeAffine(reader, RwkvNames(index, "ln1", "ln1"), hidden);
  w.head_norm.affine = TakeAffine(reader, same("ln_x"), inner);
  w.mix_first = reader.Take(same("time_maa_x"), vector);
  const char* const mixtures[] = {"time_maa_w", "time_maa_k", "time_maa_v",
                                  "time_maa_r", "time_maa_g"};
  for (int i = 0; i < kMixtures; ++i) {
    w.mix[i] = reader.Take(same(mixtures[i]), vector);
  }
  w.mix_down = reader.Take(same("time_maa_w1"), {hidden, kMixtures * mix_rank});
  w.mix_up = reader.Take(same("time_maa_w2"), {kMixtures, mix_rank, hidden});
  w.decay = reader.Take(same("time_decay"), {1, 1, inner});
  w.decay_down = reader.Take(same("time_decay_w1"), {hidden, decay_rank});
  w.decay_up = reader.Take(same("time_decay_w2"), {decay_rank, inner});
  w.bonus = reader.Take(same("time_faaaa"), {inner / head_size, head_size});
  w.key = reader.Take(same("key.weight"), {inner, hidden});
  w.value = reader.Take(same("value.weight"), {inner, hidden});
  w.receptance = reader.Take(same("receptance.weight"), {inner, hidden});
  w.gate = reader.Take(same("gate.weight"), {inner, hidden});
  w.out = reader.Take(same("output.weight"), {hidden, inner});
  w.channel_mix = TakeRwkvChannelMix(reader, index, sizes, 0, true);
  return w;
}

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  const RwkvSizes sizes = ReadRwkvSizes(file, "layer_norm_epsilon");
  LIMPID_ASSIGN_OR_RETURN(const RwkvHeads heads, ReadRwkvHeads(file, sizes));
  const bool tied = file.Bool("tie_word_embeddings", false);
  LIMPID_RETURN_IF_ERROR(file.status());
  const RwkvFrame frame = TakeRwkvFrame(reader, sizes, tied);
  std::vector<LayerWeights> layers;
  for (int64_t index = 0; index < sizes.num_layers; ++index) {
    const WeightReader::Layer reading(reader, index);
    layers.push_back(ReadLayer(sizes, heads.size, index, reader));
  }
  LIMPID_RETURN_IF_ERROR(reader.status());
  for (LayerWeights& w : layers) {
    w.head_norm.epsilon = heads.epsilon;
  }
  ResidualParts parts = RwkvParts(frame, sizes, "rwkv6", reader);
  parts.info.state_size = heads.size;
  parts.info.forms = NormedHeadForms();
  for (LayerWeights& w : layers) {
    parts.layers.push_back(
        std::make_unique<Rwkv6Layer>(sizes.epsilon, std::move(w)));
  }
  return MakeResidualNetwork(std::move(parts));
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "rwkv6";
  spec.model_types = {"rwkv6"};
  spec.tiny_configs = {
      R"({"model_type": "rwkv6", "vocab_size": 11, "hidden_size": 8,
          "head_size": 4, "num_hidden_layers": 2})",
      R"({"model_type": "rwkv6", "vocab_size": 9, "hidden_size": 6,
          "attention_hidden_size": 10, "head_size": 5,
          "num_attention_heads": 64, "num_hidden_layers": 2})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::rwkv6
