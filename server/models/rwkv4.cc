// SPDX-License-Identifier: Apache-2.0
#include "server/models/rwkv4.h"

#include <ATen/ATen.h>

#include <limits>
#include <tuple>
#include <utility>

#include "server/models/factored_attention.h"
#include "server/models/kernel_ops.h"
#include "server/models/rwkv.h"

namespace limpid::architectures::rwkv4 {
namespace {

struct LayerWeights {
  Affine norm;
  at::Tensor decay;  // [D]: log of the decay per position, negative
  at::Tensor bonus;  // [D]: what the current token's key is raised by
  at::Tensor mix_key, mix_value, mix_receptance;  // [1, 1, E]
  at::Tensor key, value, receptance;              // [D, E]
  at::Tensor out;                                 // [E, D]
  RwkvChannelMix channel_mix;
};

// Nothing is left after a step of it, and multiples by positions keep the
// digits of keys in double precision.
constexpr double kStrongestDecay = -1e5;

// The recurrence of WKV at keys [B, L, D]: values are averaged with weights
//   exp(key_j + (i - 1 - j) decay), j < i,   and   exp(key_i + bonus).
// Keys can be large, so everything is relative to the largest weight so far:
// all factors are at most one.
FrozenRecurrence Wkv(const at::Tensor& key, const at::Tensor& decay,
                     const at::Tensor& bonus) {
  const int64_t length = key.size(1);
  // largest_i = max over j <= i of key_j + (i - j) decay, of which gradients
  // know nothing: the weights do not depend on it. In double precision, since
  // i decay is large and cancels.
  const at::Tensor exact = key.detach().to(at::kDouble);
  const at::Tensor travelled =
      at::arange(length, exact.options()).view({1, -1, 1}) *
      decay.to(at::kDouble);
  const at::Tensor largest =
      (std::get<0>(at::cummax(exact - travelled, 1)) + travelled)
          .to(key.scalar_type());
  // What the state of the positions before is relative to; nothing is before
  // position 0.
  const at::Tensor before =
      at::cat({at::full_like(largest.narrow(1, 0, 1),
                             -std::numeric_limits<double>::infinity()),
               largest.narrow(1, 0, length - 1)},
              1);
  const at::Tensor current = key + bonus;
  const at::Tensor top = at::maximum(before, current.detach());
  FrozenRecurrence wkv;
  wkv.key = at::exp(key - largest).unsqueeze(-1);
  wkv.decay = at::exp(before + decay - largest).unsqueeze(-1);
  wkv.query = at::exp(before - top).unsqueeze(-1);
  wkv.diagonal = at::exp(current - top);
  // Divide by the sum of the weights, which is what ones are mapped to.
  const at::Tensor sum = StateScan(
      wkv,
      at::ones({1}, key.options().requires_grad(false)).expand(wkv.key.sizes()),
      Packing());
  wkv.query = wkv.query / sum;
  wkv.diagonal = wkv.diagonal / sum.squeeze(-1);
  return wkv;
}

class Rwkv4Layer final : public Layer {
 public:
  Rwkv4Layer(double epsilon, LayerWeights weights)
      : epsilon_(epsilon), weights_(std::move(weights)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override;
  int64_t num_channels() const override { return weights_.key.size(0); }
  LayerCost Cost(int64_t length) const override {
    const int64_t inner = weights_.key.size(0), hidden = weights_.key.size(1);
    LayerCost cost;
    cost.forward = length * (8 * hidden + 26 * inner);
    cost.gradient = length * (14 * hidden + 30 * inner);
    cost.backward = length * (8 * hidden + 24 * inner);
    cost.map = 8 * inner * length;
    cost.flops = length * (8.0 * hidden * inner + 60.0 * inner);
    cost.entry_flops = 4;
    weights_.channel_mix.AddCost(length, cost);
    return cost;
  }

 private:
  const double epsilon_;
  const LayerWeights weights_;
};

at::Tensor Rwkv4Layer::Run(const at::Tensor& stream, Pass& pass) const {
  const LayerWeights& w = weights_;
  const at::Tensor n = LayerNorm(stream, w.norm, epsilon_, pass);
  const at::Tensor shifted = Shift(n, pass.packing);
  const at::Tensor value =
      Project(MixWeighted(n, shifted, w.mix_value), w.value, pass);
  const at::Tensor receptance =
      Project(MixWeighted(n, shifted, w.mix_receptance), w.receptance, pass);
  const at::Tensor key =
      pass.Factor(Project(MixWeighted(n, shifted, w.mix_key), w.key, pass));
  WkvRun run;
  if (pass.fused()) {
    run = RunWkv(key, value, receptance, w.decay, w.bonus, pass.visits(),
                 pass.packing);
  } else {
    run.gate = pass.Factor(at::sigmoid(receptance));
    run.recurrence = Wkv(key, w.decay, w.bonus);
    run.output = StateScan(run.recurrence, value.unsqueeze(-1), pass.packing)
                     .squeeze(-1) *
                 run.gate;
  }
  if (pass.visits()) {
    DirectionTrace direction;
    direction.recurrence =
        MakeRecurrenceOperator(run.recurrence, 1, at::Tensor());
    BlockTrace trace;
    trace.directions.push_back(std::move(direction));
    trace.x = value;
    trace.gate = run.gate;
    trace.output = run.output;
    trace.projection.weight = w.out;
    trace.stream = stream;
    VisitBlocks(pass, std::move(trace));
  }
  return w.channel_mix.Run(
      stream + pass.BlockOutput(Project(run.output, w.out, pass)), epsilon_,
      pass);
}

LayerWeights ReadLayer(const RwkvSizes& sizes, int64_t width, int64_t index,
                       WeightReader& reader) {
  const int64_t hidden = sizes.hidden, inner = sizes.inner;
  const auto names = [&](const std::string& hf, const std::string& blinkdl) {
    return RwkvNames(index, "attention." + hf, "att." + blinkdl);
  };
  const auto same = [&](const std::string& name) { return names(name, name); };
  const std::vector<int64_t> vector = {1, 1, hidden};
  LayerWeights w;
  w.norm = TakeAffine(reader, RwkvNames(index, "ln1", "ln1"), hidden);
  w.decay = reader.Take(same("time_decay"), {inner});
  w.bonus = reader.Take(same("time_first"), {inner});
  w.mix_key = reader.Take(names("time_mix_key", "time_mix_k"), vector);
  w.mix_value = reader.Take(names("time_mix_value", "time_mix_v"), vector);
  w.mix_receptance =
      reader.Take(names("time_mix_receptance", "time_mix_r"), vector);
  w.key = reader.Take(same("key.weight"), {inner, hidden});
  w.value = reader.Take(same("value.weight"), {inner, hidden});
  w.receptance = reader.Take(same("receptance.weight"), {inner, hidden});
  w.out = reader.Take(same("output.weight"), {hidden, inner});
  w.channel_mix = TakeRwkvChannelMix(reader, index, sizes, width, false);
  return w;
}

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  const RwkvSizes sizes = ReadRwkvSizes(file, "layer_norm_epsilon");
  const int64_t width =
      file.Int("intermediate_size", 4 * sizes.hidden, 1, int64_t{1} << 26);
  const bool tied = file.Bool("tie_word_embeddings", false);
  LIMPID_RETURN_IF_ERROR(file.status());
  const RwkvFrame frame = TakeRwkvFrame(reader, sizes, tied);
  std::vector<LayerWeights> layers;
  for (int64_t index = 0; index < sizes.num_layers; ++index) {
    const WeightReader::Layer reading(reader, index);
    layers.push_back(ReadLayer(sizes, width, index, reader));
  }
  LIMPID_RETURN_IF_ERROR(reader.status());
  for (LayerWeights& w : layers) {
    w.decay = at::clamp_min(-w.decay.exp(), kStrongestDecay);
  }
  ResidualParts parts = RwkvParts(frame, sizes, "rwkv4", reader);
  parts.info.state_size = 1;
  parts.info.forms = {AttentionForm::kFull, AttentionForm::kState,
                      AttentionForm::kNoGate, AttentionForm::kUpstream};
  for (LayerWeights& w : layers) {
    parts.layers.push_back(
        std::make_unique<Rwkv4Layer>(sizes.epsilon, std::move(w)));
  }
  return MakeResidualNetwork(std::move(parts));
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "rwkv4";
  spec.model_types = {"rwkv"};
  spec.tiny_configs = {
      R"({"model_type": "rwkv", "vocab_size": 11, "hidden_size": 8,
          "num_hidden_layers": 2})",
      R"({"model_type": "rwkv", "vocab_size": 9, "hidden_size": 6,
          "attention_hidden_size": 10, "intermediate_size": 7,
          "num_hidden_layers": 3, "rescale_every": 2})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::rwkv4
