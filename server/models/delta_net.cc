// SPDX-License-Identifier: Apache-2.0
#include "server/models/delta_net.h"

#include <ATen/ATen.h>

#include "server/models/layers.h"
#include "server/models/linear_attention.h"

namespace limpid::architectures::delta_net {
namespace {

// What makes keys (and queries) of what is projected.
struct KeyMap {
  std::string activation;
  std::string norm;

  at::Tensor operator()(const at::Tensor& x) const {
    // The skeleton takes care of SiLU.
    at::Tensor activated = x;
    if (activation == "relu") activated = at::relu(x);
    if (activation == "elu") activated = at::elu(x) + 1;
    return norm == "l2" ? NormalizeL2(activated)
                        : activated / activated.sum(-1, /*keepdim=*/true);
  }
};

KeyMap ReadKeyMap(HfConfig& file) {
  KeyMap map{file.String("qk_activation", "silu"),
             file.String("qk_norm", "l2")};
  if (map.activation != "silu" && map.activation != "relu" &&
      map.activation != "elu" && map.activation != "identity") {
    file.AddError("qk_activation",
                  "must be \"silu\", \"relu\", \"elu\" or \"identity\"");
  }
  if (map.norm != "l2" && map.norm != "sum") {
    file.AddError("qk_norm", "must be \"l2\" or \"sum\"");
  }
  return map;
}

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  LinearAttentionConfig config = ReadLinearAttention(file, 4, true);
  ReadExpandedHeads(file, 16, 1, 1, config);
  const KeyMap key_map = ReadKeyMap(file);
  config.silu_keys = key_map.activation == "silu";
  config.silu_values = true;
  config.rank_one = true;
  config.gate = file.Bool("use_gate", false);
  RequireValue(file, "use_output_norm", true);
  RequireValue(file, "allow_neg_eigval", false);
  const bool has_strength = file.Bool("use_beta", true);
  LIMPID_RETURN_IF_ERROR(file.status());
  return BuildLinearAttention(
      "delta_net", config, reader,
      [&](int64_t, const std::string& prefix) -> MakeRecurrence {
        const at::Tensor weight =
            reader.TakeIf(has_strength, {prefix + "b_proj.weight"},
                          {config.num_heads, config.hidden});
        return [=](const RecurrenceInput& in, const Pass& pass) {
          const at::Tensor query = pass.Factor(key_map(in.query));
          const at::Tensor key = pass.Factor(key_map(in.key));
          const at::Tensor one = at::ones({1}, key.options());
          const at::Tensor strength =
              weight.defined()
                  ? pass.Factor(at::sigmoid(Project(in.normed, weight, pass)))
                        .unsqueeze(-1)
                  : one;
          return DeltaRule(query, key, strength, one);
        };
      });
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "delta_net";
  spec.model_types = {"delta_net"};
  spec.experimental = true;
  spec.tiny_configs = {
      R"({"model_type": "delta_net", "vocab_size": 11, "hidden_size": 8,
          "num_hidden_layers": 2, "num_heads": 2, "intermediate_size": 12,
          "conv_size": 3, "conv_bias": true})",
      R"({"model_type": "delta_net", "vocab_size": 9, "hidden_size": 6,
          "num_hidden_layers": 2, "num_heads": 3, "expand_k": 2.0,
          "expand_v": 1.5, "hidden_ratio": 1, "use_short_conv": false,
          "use_gate": true, "use_beta": false, "qk_activation": "elu",
          "qk_norm": "sum", "norm_eps": 1e-5,
          "tie_word_embeddings": true})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::delta_net
