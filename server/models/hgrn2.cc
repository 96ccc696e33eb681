// SPDX-License-Identifier: Apache-2.0
#include "server/models/hgrn2.h"

#include <ATen/ATen.h>

#include "server/models/linear_attention.h"

namespace limpid::architectures::hgrn2 {
namespace {

// Of the norm behind the recurrence, which published code leaves at its
// default.
constexpr double kNormEpsilon = 1e-5;

void ReadHeads(HfConfig& file, LinearAttentionConfig& config) {
  // A head has as many keys as the expansion ratio says; the number of heads
  // follows from it and counts only where it is missing.
  if (file.Has("num_heads") && !file.Has("expand_ratio")) {
    config.num_heads = file.Int("num_heads", 1, 1, config.hidden);
    config.key_size = config.hidden / config.num_heads;
    if (config.key_size > kernels::kMaxStateSize) {
      file.AddError("num_heads", "makes heads too wide");
    }
  } else {
    config.key_size = file.Int("expand_ratio", 128, 1, kernels::kMaxStateSize);
    config.num_heads = config.hidden / config.key_size;
    if (config.num_heads == 0) {
      file.AddError("expand_ratio", "must be at most hidden_size");
      config.num_heads = 1;
    }
  }
  config.num_key_heads = config.num_heads;
  config.value_size = config.hidden / config.num_heads;
  if (config.hidden % config.num_heads != 0) {
    file.AddError("hidden_size", "must be a multiple of the number of heads");
  }
}

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  LinearAttentionConfig config = ReadLinearAttention(file, 4, false);
  ReadHeads(file, config);
  config.norm_heads = false;
  config.norm_weight = file.Bool("elementwise_affine", true);
  config.norm_epsilon = kNormEpsilon;
  const bool has_bounds = file.Bool("use_lower_bound", true);
  if (has_bounds && config.keys() != config.hidden) {
    file.AddError("use_lower_bound",
                  "needs a hidden_size that is a multiple of expand_ratio");
  }
  LIMPID_RETURN_IF_ERROR(file.status());
  // Lower bounds of decays grow from 0 in the first layer.
  at::Tensor bounds = reader.TakeIf(has_bounds, {"model.lower_bounds"},
                                    {config.num_layers, config.hidden});
  if (bounds.defined()) {
    const at::Tensor shares = at::softmax(bounds, 0);
    bounds = at::cumsum(shares, 0) - shares[0];
  }
  return BuildLinearAttention(
      "hgrn2", config, reader,
      [&](int64_t index, const std::string&) -> MakeRecurrence {
        const at::Tensor bound =
            bounds.defined()
                ? bounds[index]
                      .view({config.num_key_heads, config.key_size})
                      .to(reader.device())
                : at::zeros({1}, at::device(reader.device())
                                     .dtype(reader.options().dtype));
        return [=](const RecurrenceInput& in, const Pass& pass) {
          FrozenRecurrence recurrence;
          recurrence.query = pass.Factor(at::silu(in.query));
          // The projected keys are forget gates; what is not forgotten is not
          // written. Neither is made from the other, so that small ones stay
          // exact.
          recurrence.key = pass.Factor((1 - bound) * at::sigmoid(-in.key));
          recurrence.decay =
              pass.Factor(bound + (1 - bound) * at::sigmoid(in.key));
          return recurrence;
        };
      });
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "hgrn2";
  spec.model_types = {"hgrn2"};
  spec.experimental = true;
  spec.tiny_configs = {
      R"({"model_type": "hgrn2", "vocab_size": 11, "hidden_size": 8,
          "num_hidden_layers": 2, "expand_ratio": 4,
          "intermediate_size": 12})",
      R"({"model_type": "hgrn2", "vocab_size": 9, "hidden_size": 10,
          "num_hidden_layers": 2, "expand_ratio": 4, "hidden_ratio": 1,
          "use_lower_bound": false, "use_short_conv": true, "conv_size": 3,
          "conv_bias": true, "elementwise_affine": false, "norm_eps": 1e-4,
          "tie_word_embeddings": true})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::hgrn2
