// SPDX-License-Identifier: Apache-2.0
#include "server/models/rwkv5.h"

#include <ATen/ATen.h>

#include <utility>

#include "server/models/normed_heads.h"
#include "server/models/rwkv.h"

namespace limpid::architectures::rwkv5 {
namespace {

struct LayerWeights {
  Affine norm;
  HeadNorm head_norm;
  at::Tensor decay;  // [H, S]: from 0 to 1
  at::Tensor bonus;  // [H, S]
  at::Tensor mix_key, mix_value, mix_receptance, mix_gate;  // [1, 1, E]
  at::Tensor key, value, receptance, gate;                  // [D, E]
  at::Tensor out;                                           // [E, D]
  RwkvChannelMix channel_mix;
};

class Rwkv5Layer final : public Layer {
 public:
  Rwkv5Layer(double epsilon, LayerWeights weights)
      : epsilon_(epsilon), weights_(std::move(weights)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override;
  int64_t num_channels() const override { return weights_.key.size(0); }
  int64_t channels_per_head() const override { return weights_.decay.size(1); }
  int64_t num_heads() const override { return weights_.decay.size(0); }
  LayerCost Cost(int64_t length) const override {
    const int64_t inner = weights_.key.size(0), hidden = weights_.key.size(1);
    LayerCost cost;
    cost.forward = length * (8 * hidden + 8 * inner);
    cost.gradient = length * (16 * hidden + 10 * inner);
    cost.backward = length * (8 * hidden + 8 * inner);
    cost.flops = length * (10.0 * hidden * inner + 60.0 * inner);
    AddNormedHeadsCost(length, inner, channels_per_head(), cost);
    weights_.channel_mix.AddCost(length, cost);
    return cost;
  }

 private:
  const double epsilon_;
  const LayerWeights weights_;
};

at::Tensor Rwkv5Layer::Run(const at::Tensor& stream, Pass& pass) const {
  const LayerWeights& w = weights_;
  const at::Tensor n = LayerNorm(stream, w.norm, epsilon_, pass);
  const at::Tensor shifted = Shift(n, pass.packing);
  const auto mixed = [&](const at::Tensor& mix, const at::Tensor& weight) {
    return Project(MixWeighted(n, shifted, mix), weight, pass);
  };
  const at::Tensor value = mixed(w.mix_value, w.value);
  const at::Tensor gate = pass.Factor(at::silu(mixed(w.mix_gate, w.gate)));
  const auto by_head = [&](const at::Tensor& tensor) {
    return pass.Factor(tensor).view(
        {tensor.size(0), tensor.size(1), w.decay.size(0), w.decay.size(1)});
  };
  FrozenRecurrence recurrence;
  recurrence.query = by_head(mixed(w.mix_receptance, w.receptance));
  recurrence.key = by_head(mixed(w.mix_key, w.key));
  recurrence.decay = w.decay.expand(recurrence.key.sizes());
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
  const std::vector<int64_t> heads = {inner / head_size, head_size};
  LayerWeights w;
  w.norm = TakeAffine(reader, RwkvNames(index, "ln1", "ln1"), hidden);
  w.head_norm.affine = TakeAffine(reader, same("ln_x"), inner);
  w.decay = reader.Take(same("time_decay"), heads);
  w.bonus = reader.Take(same("time_faaaa"), heads);
  w.mix_key = reader.Take(names("time_mix_key", "time_mix_k"), vector);
  w.mix_value = reader.Take(names("time_mix_value", "time_mix_v"), vector);
  w.mix_receptance =
      reader.Take(names("time_mix_receptance", "time_mix_r"), vector);
  w.mix_gate = reader.Take(names("time_mix_gate", "time_mix_g"), vector);
  w.key = reader.Take(same("key.weight"), {inner, hidden});
  w.value = reader.Take(same("value.weight"), {inner, hidden});
  w.receptance = reader.Take(same("receptance.weight"), {inner, hidden});
  w.gate = reader.Take(same("gate.weight"), {inner, hidden});
  w.out = reader.Take(same("output.weight"), {hidden, inner});
  w.channel_mix = TakeRwkvChannelMix(reader, index, sizes, 0, false);
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
    w.decay = at::exp(-w.decay.exp());
    w.head_norm.epsilon = heads.epsilon;
  }
  ResidualParts parts = RwkvParts(frame, sizes, "rwkv5", reader);
  parts.info.state_size = heads.size;
  parts.info.forms = NormedHeadForms();
  for (LayerWeights& w : layers) {
    parts.layers.push_back(
        std::make_unique<Rwkv5Layer>(sizes.epsilon, std::move(w)));
  }
  return MakeResidualNetwork(std::move(parts));
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "rwkv5";
  spec.model_types = {"rwkv5"};
  spec.tiny_configs = {
      R"({"model_type": "rwkv5", "vocab_size": 11, "hidden_size": 8,
          "head_size": 4, "num_hidden_layers": 2})",
      R"({"model_type": "rwkv5", "vocab_size": 9, "hidden_size": 6,
          "attention_hidden_size": 10, "head_size": 5,
          "num_attention_heads": 64, "num_hidden_layers": 2})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::rwkv5
