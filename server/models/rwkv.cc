// SPDX-License-Identifier: Apache-2.0
#include "server/models/rwkv.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/kernels/ops.h"

namespace limpid {

RwkvSizes ReadRwkvSizes(HfConfig& file, const char* layer_norm) {
  RwkvSizes sizes;
  sizes.vocabulary = file.RequiredInt("vocab_size", 1, kMaxSize);
  sizes.hidden = file.RequiredInt("hidden_size", 1, kMaxSize);
  sizes.inner = file.Int("attention_hidden_size", sizes.hidden, 1, kMaxSize);
  sizes.num_layers = file.RequiredInt("num_hidden_layers", 1, 4096);
  sizes.epsilon = file.Double(layer_norm, 1e-5);
  if (!(sizes.epsilon >= 0)) file.AddError(layer_norm, "must not be negative");
  return sizes;
}

std::vector<std::string> RwkvNames(int64_t index, const std::string& hf,
                                   const std::string& blinkdl) {
  return {absl::StrCat("rwkv.blocks.", index, ".", hf),
          absl::StrCat("blocks.", index, ".", blinkdl)};
}

at::Tensor MixWeighted(const at::Tensor& x, const at::Tensor& shifted,
                       const at::Tensor& mu) {
  return at::lerp(shifted, x, mu);
}

RwkvFrame TakeRwkvFrame(WeightReader& reader, const RwkvSizes& sizes,
                        bool tied_head, bool has_first_norm, bool norm_bias) {
  RwkvFrame frame;
  frame.embeddings = reader.Take(
      {"rwkv.embeddings.weight", "emb.weight", "model.embeddings.weight"},
      {sizes.vocabulary, sizes.hidden});
  if (has_first_norm) {
    frame.first_norm = TakeAffine(
        reader,
        {"rwkv.blocks.0.pre_ln", "blocks.0.ln0", "model.layers.0.pre_norm"},
        sizes.hidden, norm_bias);
  }
  frame.last_norm = TakeAffine(reader, {"rwkv.ln_out", "ln_out", "model.norm"},
                               sizes.hidden, norm_bias);
  frame.head = tied_head ? frame.embeddings
                         : reader.Take({"head.weight", "lm_head.weight"},
                                       {sizes.vocabulary, sizes.hidden});
  return frame;
}

ResidualParts RwkvParts(const RwkvFrame& frame, const RwkvSizes& sizes,
                        const char* architecture, const WeightReader& reader) {
  ResidualParts parts;
  parts.info.architecture = architecture;
  parts.info.hidden_size = sizes.hidden;
  parts.info.vocabulary_size = sizes.vocabulary;
  parts.SetWeights(reader);
  parts.mean_embedding = frame.embeddings.mean(0);
  parts.embed = TokenEmbedding(frame.embeddings);
  if (frame.first_norm.weight.defined()) {
    parts.enter = [norm = frame.first_norm, epsilon = sizes.epsilon](
                      const at::Tensor& embeddings, const Pass& pass) {
      return LayerNorm(embeddings, norm, epsilon, pass);
    };
  }
  parts.head = [norm = frame.last_norm, head = frame.head,
                epsilon = sizes.last_epsilon](const at::Tensor& stream,
                                              const Pass& pass) {
    return Project(LayerNorm(stream, norm, epsilon, pass), head, pass);
  };
  return parts;
}

at::Tensor RwkvChannelMix::Run(const at::Tensor& stream, double epsilon,
                               const Pass& pass) const {
  const at::Tensor m = LayerNorm(stream, norm, epsilon, pass);
  const at::Tensor shifted = Shift(m, pass.packing);
  const auto mixed = [&](const at::Tensor& mu) {
    return towards_shifted ? MixWeighted(shifted, m, mu)
                           : MixWeighted(m, shifted, mu);
  };
  const at::Tensor gate = pass.Factor(
      at::sigmoid(Project(mixed(mix_receptance), receptance, pass)));
  return at::addcmul(
      stream, gate,
      Project(SquaredRelu(Project(mixed(mix_key), key, pass), pass), value,
              pass));
}

void RwkvChannelMix::AddCost(int64_t length, LayerCost& cost) const {
  const int64_t hidden = key.size(1), width = key.size(0);
  cost.forward += length * (9 * hidden + 4 * width);
  cost.gradient += length * (16 * hidden + 4 * width);
  cost.backward += length * (8 * hidden + 4 * width);
  cost.flops += length * (2.0 * hidden * (2 * width + hidden) + 30.0 * hidden);
}

absl::StatusOr<RwkvHeads> ReadRwkvHeads(HfConfig& file,
                                        const RwkvSizes& sizes) {
  RwkvHeads heads;
  // num_attention_heads is 64 in published files of every size: it means
  // nothing.
  heads.size = file.Int("head_size", 64, 1, kernels::kMaxStateSize);
  if (sizes.inner % heads.size != 0) {
    file.AddError("head_size", "must divide the hidden size");
  }
  // The published code divides by head_size_divisor before a norm of epsilon
  // 1e-5.
  const double divisor = file.Double("head_size_divisor", 8);
  heads.epsilon = 1e-5 * divisor * divisor;
  LIMPID_RETURN_IF_ERROR(file.status());
  return heads;
}

RwkvChannelMix TakeRwkvChannelMix(WeightReader& reader, int64_t index,
                                  const RwkvSizes& sizes, int64_t width,
                                  bool towards_shifted) {
  const int64_t hidden = sizes.hidden;
  const auto names = [&](const std::string& hf, const std::string& blinkdl) {
    return RwkvNames(index, "feed_forward." + hf, "ffn." + blinkdl);
  };
  const auto same = [&](const std::string& name) { return names(name, name); };
  if (width == 0) {
    const std::vector<int64_t> shape = reader.ShapeOf(same("key.weight"));
    width = shape.empty() ? 4 * hidden : shape.front();
  }
  RwkvChannelMix mix;
  mix.towards_shifted = towards_shifted;
  mix.norm = TakeAffine(reader, RwkvNames(index, "ln2", "ln2"), hidden);
  const std::vector<int64_t> vector = {1, 1, hidden};
  if (towards_shifted) {
    mix.mix_key = reader.Take(same("time_maa_k"), vector);
    mix.mix_receptance = reader.Take(same("time_maa_r"), vector);
  } else {
    mix.mix_key = reader.Take(names("time_mix_key", "time_mix_k"), vector);
    mix.mix_receptance =
        reader.Take(names("time_mix_receptance", "time_mix_r"), vector);
  }
  mix.key = reader.Take(same("key.weight"), {width, hidden});
  mix.receptance = reader.Take(same("receptance.weight"), {hidden, hidden});
  mix.value = reader.Take(same("value.weight"), {hidden, width});
  return mix;
}

}  // namespace limpid
