// SPDX-License-Identifier: Apache-2.0
#include "server/models/gla.h"

#include <ATen/ATen.h>

#include <limits>

#include "server/models/layers.h"
#include "server/models/linear_attention.h"

namespace limpid::architectures::gla {
namespace {

// What flash-linear-attention's models divide logarithms of decays by.
constexpr double kLogDecayDivisor = 16;

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  LinearAttentionConfig config = ReadLinearAttention(file, 4, false);
  ReadGatedHeads(file, 4, 0.5, 1, config);
  config.silu_keys = config.silu_values = config.conv_width > 0;
  const double smallest =
      file.Double("clamp_min", -std::numeric_limits<double>::infinity());
  if (!(smallest <= 0)) file.AddError("clamp_min", "must not be above 0");
  if (file.Double("gate_logit_normalizer", kLogDecayDivisor) !=
      kLogDecayDivisor) {
    file.AddError("gate_logit_normalizer", "must be 16: it has no effect");
  }
  RequireValue(file, "use_gk", true);
  RequireValue(file, "use_gv", false);
  LIMPID_RETURN_IF_ERROR(file.status());
  return BuildLinearAttention(
      "gla", config, reader,
      [&](int64_t, const std::string& prefix) -> MakeRecurrence {
        // No field tells the rank of the decay's projection.
        const std::string down_name = prefix + "gk_proj.0.weight";
        const std::vector<int64_t> shape = reader.ShapeOf({down_name});
        const int64_t rank = shape.empty() ? 16 : shape.front();
        const at::Tensor down = reader.Take({down_name}, {rank, config.hidden});
        const at::Tensor up =
            reader.Take({prefix + "gk_proj.1.weight"}, {config.keys(), rank});
        const at::Tensor bias =
            reader.Take({prefix + "gk_proj.1.bias"}, {config.keys()});
        return [=](const RecurrenceInput& in, const Pass& pass) {
          FrozenRecurrence recurrence;
          recurrence.query = pass.Factor(in.query);
          recurrence.key = pass.Factor(in.key);
          const at::Tensor log_decay =
              at::log_sigmoid(
                  Project(Project(in.normed, down, pass), up, bias, pass)) /
              kLogDecayDivisor;
          recurrence.decay =
              pass.Factor(at::exp(at::clamp_min(log_decay, smallest)))
                  .view_as(in.key);
          return recurrence;
        };
      });
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "gla";
  spec.model_types = {"gla"};
  spec.experimental = true;
  spec.tiny_configs = {
      R"({"model_type": "gla", "vocab_size": 11, "hidden_size": 8,
          "num_hidden_layers": 2, "num_heads": 2, "intermediate_size": 12})",
      R"({"model_type": "gla", "vocab_size": 9, "hidden_size": 6,
          "num_hidden_layers": 2, "num_heads": 3, "num_kv_heads": 3,
          "expand_k": 2.0, "expand_v": 1.5, "hidden_ratio": 1,
          "use_short_conv": true, "conv_size": 3, "conv_bias": true,
          "use_output_gate": false, "elementwise_affine": false,
          "clamp_min": -0.04, "norm_eps": 1e-5, "tie_word_embeddings": true})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::gla
