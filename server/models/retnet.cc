// SPDX-License-Identifier: Apache-2.0
#include "server/models/retnet.h"

#include <ATen/ATen.h>

#include "server/models/layers.h"
#include "server/models/linear_attention.h"

namespace limpid::architectures::retnet {
namespace {

constexpr double kRotaryBase = 10000;

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  LinearAttentionConfig config = ReadLinearAttention(file, 2, false);
  ReadGatedHeads(file, 8, 1, 2, config);
  // flash-linear-attention's model does not pass use_short_conv on to its
  // layers: the weights know whether there are convolutions.
  if (!reader.Has("model.layers.0.attn.q_conv1d.weight")) {
    config.conv_width = 0;
  }
  config.silu_keys = config.silu_values = config.conv_width > 0;
  if (config.key_size % 2 != 0) {
    file.AddError("expand_k",
                  "makes heads of an odd number of keys, which "
                  "can't be rotated");
  }
  LIMPID_RETURN_IF_ERROR(file.status());
  // Heads forget at rates of their own: 1 - 2^(-5 - h).
  const at::Tensor decays =
      (1 - at::exp2(-5 - at::arange(config.num_heads, at::kDouble)))
          .to(reader.options().dtype)
          .unsqueeze(-1);
  return BuildLinearAttention(
      "retnet", config, reader,
      [&](int64_t, const std::string&) -> MakeRecurrence {
        return [decay = decays.to(reader.device())](const RecurrenceInput& in,
                                                    const Pass& pass) {
          // Only distances matter, so packed sequences need no positions of
          // their own.
          const auto rotated = [&](const at::Tensor& x) {
            return pass.Factor(
                Rotate(x.transpose(1, 2), x.size(-1), kRotaryBase)
                    .transpose(1, 2));
          };
          FrozenRecurrence recurrence;
          recurrence.query = rotated(in.query);
          recurrence.key = rotated(in.key);
          recurrence.decay = decay.expand_as(in.key);
          return recurrence;
        };
      });
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "retnet";
  spec.model_types = {"retnet"};
  spec.experimental = true;
  spec.tiny_configs = {
      R"({"model_type": "retnet", "vocab_size": 11, "hidden_size": 8,
          "num_hidden_layers": 2, "num_heads": 2, "intermediate_size": 12})",
      R"({"model_type": "retnet", "vocab_size": 9, "hidden_size": 6,
          "num_hidden_layers": 2, "num_heads": 3, "num_kv_heads": 3,
          "expand_k": 2.0, "expand_v": 1.5, "hidden_ratio": 1,
          "use_short_conv": true, "conv_size": 3, "conv_bias": true,
          "use_output_gate": false, "elementwise_affine": false,
          "norm_eps": 1e-5, "tie_word_embeddings": true})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::retnet
