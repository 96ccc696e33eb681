// SPDX-License-Identifier: Apache-2.0
//
// What RWKV-4 to RWKV-7 have in common: names of tensors in the layouts in
// which they are published, token shift, the outer network.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "server/checkpoint/hf_config.h"
#include "server/models/layers.h"
#include "server/models/residual_network.h"
#include "server/models/weights.h"

namespace limpid {

// Sizes that all versions have. Null fields of config.json take the usual
// value.
struct RwkvSizes {
  int64_t vocabulary = 0;  // V
  int64_t hidden = 0;      // E
  int64_t inner = 0;       // D: channels of the time mixing
  int64_t num_layers = 0;
  double epsilon = 1e-5;  // of the layer norms
  // Of the last one, which published code up to RWKV-6 leaves at its default,
  // whatever the configuration says.
  double last_epsilon = 1e-5;
};
// Wrong fields are noted in `file`. `layer_norm` is the field of epsilon.
RwkvSizes ReadRwkvSizes(HfConfig& file, const char* layer_norm);

// Names of a part of layer `index`, best first: Hugging Face's "rwkv.blocks.N."
// with attention and feed_forward, and BlinkDL's "blocks.N." with att and ffn.
std::vector<std::string> RwkvNames(int64_t index, const std::string& hf,
                                   const std::string& blinkdl);

// mu x + (1 - mu) shifted.
at::Tensor MixWeighted(const at::Tensor& x, const at::Tensor& shifted,
                       const at::Tensor& mu);

// What the versions have around their layers: embedding, a layer norm before
// the first block, one after the last, an untied head. Names as in RwkvNames or
// flash-linear-attention's.
struct RwkvFrame {
  at::Tensor embeddings;  // [V, E]
  Affine first_norm;      // undefined: none
  Affine last_norm;
  at::Tensor head;  // [V, E]
};
RwkvFrame TakeRwkvFrame(WeightReader& reader, const RwkvSizes& sizes,
                        bool tied_head, bool has_first_norm = true,
                        bool norm_bias = true);

// Parts without layers, forms and state size.
ResidualParts RwkvParts(const RwkvFrame& frame, const RwkvSizes& sizes,
                        const char* architecture, const WeightReader& reader);

// The channel mixing of RWKV-4 to 6: sigmoid(receptance) value(relu(key)^2).
struct RwkvChannelMix {
  Affine norm;
  at::Tensor mix_key, mix_receptance;  // [1, 1, E]
  // Whether the mixes are those of x towards its predecessor (RWKV-6) or the
  // other way round.
  bool towards_shifted = false;
  at::Tensor key;         // [F, E]
  at::Tensor receptance;  // [E, E]
  at::Tensor value;       // [E, F]

  at::Tensor Run(const at::Tensor& stream, double epsilon,
                 const Pass& pass) const;
  void AddCost(int64_t length, LayerCost& cost) const;
};
// `mix` is the stem of its mixing vectors, time_mix or time_maa; Hugging Face's
// names end in words for the one and in letters for the other. `width` is F, or
// 0 to take it from the weights.
RwkvChannelMix TakeRwkvChannelMix(WeightReader& reader, int64_t index,
                                  const RwkvSizes& sizes, int64_t width,
                                  bool towards_shifted);

// Heads of RWKV-5 and 6: their size S, and the epsilon of their normaliser.
struct RwkvHeads {
  int64_t size = 64;
  double epsilon = 64e-5;
};
absl::StatusOr<RwkvHeads> ReadRwkvHeads(HfConfig& file, const RwkvSizes& sizes);

}  // namespace limpid
