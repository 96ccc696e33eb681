// SPDX-License-Identifier: Apache-2.0
#include "server/models/gated_deltanet.h"

#include <ATen/ATen.h>

#include <cmath>

#include "server/models/layers.h"
#include "server/models/linear_attention.h"

namespace limpid::architectures::gated_deltanet {
namespace {

void ReadHeads(HfConfig& file, LinearAttentionConfig& config) {
  constexpr int64_t kMaxHeads = 4096;
  config.num_key_heads = file.Int("num_heads", 6, 1, kMaxHeads);
  config.num_heads =
      file.Int("num_v_heads", config.num_key_heads, 1, kMaxHeads);
  if (config.num_heads % config.num_key_heads != 0) {
    file.AddError("num_v_heads", "must be a multiple of num_heads");
  }
  config.key_size = file.Int("head_dim", 256, 1, kernels::kMaxStateSize);
  const double values =
      file.Double("expand_v", 2) * static_cast<double>(config.key_size);
  if (values >= 1 && values <= 1e6) {
    config.value_size = static_cast<int64_t>(values);
  }
  if (!(std::abs(values - static_cast<double>(config.value_size)) <=
        1e-5 * values)) {
    file.AddError("expand_v", "times head_dim must be a whole number");
  }
}

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  LinearAttentionConfig config = ReadLinearAttention(file, 4, true);
  ReadHeads(file, config);
  config.silu_keys = config.silu_values = true;
  config.rank_one = true;
  config.gate = file.Bool("use_gate", true);
  // With negative eigenvalues keys can be taken back twice over.
  const double strongest = file.Bool("allow_neg_eigval", false) ? 2 : 1;
  LIMPID_RETURN_IF_ERROR(file.status());
  return BuildLinearAttention(
      "gated_deltanet", config, reader,
      [&](int64_t, const std::string& prefix) -> MakeRecurrence {
        const int64_t heads = config.num_heads;
        const auto take = [&](const char* name) {
          return reader.Take({prefix + name}, {heads, config.hidden});
        };
        const at::Tensor step_weight = take("a_proj.weight");
        const at::Tensor strength_weight = take("b_proj.weight");
        const at::Tensor log_rate = reader.Take({prefix + "A_log"}, {heads});
        const at::Tensor step_bias = reader.Take({prefix + "dt_bias"}, {heads});
        const int64_t shared = heads / config.num_key_heads;
        return [=](const RecurrenceInput& in, const Pass& pass) {
          // Neighbouring heads of values share one of keys.
          const at::Tensor query =
              RepeatHeads(pass.Factor(NormalizeL2(in.query)), shared);
          const at::Tensor key =
              RepeatHeads(pass.Factor(NormalizeL2(in.key)), shared);
          const at::Tensor strength = pass.Factor(
              at::sigmoid(Project(in.normed, strength_weight, pass)) *
              strongest);
          const at::Tensor step =
              at::softplus(Project(in.normed, step_weight, pass) + step_bias);
          const at::Tensor decay =
              pass.Factor(at::exp(-at::exp(log_rate) * step));
          return DeltaRule(query, key, strength.unsqueeze(-1),
                           decay.unsqueeze(-1));
        };
      });
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "gated_deltanet";
  spec.model_types = {"gated_deltanet"};
  spec.experimental = true;
  spec.tiny_configs = {
      R"({"model_type": "gated_deltanet", "vocab_size": 11,
          "hidden_size": 8, "num_hidden_layers": 2, "num_heads": 2,
          "head_dim": 3, "intermediate_size": 12, "conv_size": 3,
          "conv_bias": true})",
      R"({"model_type": "gated_deltanet", "vocab_size": 9, "hidden_size": 6,
          "num_hidden_layers": 2, "num_heads": 2, "num_v_heads": 4,
          "head_dim": 4, "expand_v": 0.5, "hidden_ratio": 1,
          "use_short_conv": false, "use_gate": false,
          "allow_neg_eigval": true, "norm_eps": 1e-5,
          "tie_word_embeddings": true})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::gated_deltanet
