// SPDX-License-Identifier: Apache-2.0
//
// Attention rollout: the layers' matrices, each with the residual connection
// added and its rows normalised, multiplied up.
#include "server/attribution/attention_rollout.h"

#include <ATen/ATen.h>

namespace limpid::attributions::attention_rollout {
namespace {

class AttentionRollout final : public Attribution {
 public:
  explicit AttentionRollout(const AttributionContext& context)
      : position_(context.position),
        start_layer_(context.options.start_layer.value_or(0)),
        length_(context.embeddings.size(1)) {}

  // R <- A^ R with A^[i,j] = (A[i,j] + [i=j]) / (1 + sum_j A[i,j]). Rows of
  // causal matrices up to the position never look beyond it, so only those
  // come and only those are needed.
  absl::Status OnLayer(int64_t layer, const at::Tensor& attention) override {
    if (layer < start_layer_) return absl::OkStatus();
    const int64_t rows = attention.size(0);
    at::Tensor step = attention.narrow(1, 0, rows).clone();
    step.diagonal().add_(1);
    step.div_(attention.sum(1, /*keepdim=*/true).add_(1));
    rollout_ = rollout_.defined() ? at::mm(step, rollout_) : step;
    return absl::OkStatus();
  }

  absl::StatusOr<AttributionResult> Finish(const ResolvedTarget&,
                                           const ProgressFunction&,
                                           const CancelToken&) override {
    AttributionResult result;
    result.values = at::constant_pad_nd(rollout_.select(0, position_),
                                        {0, length_ - rollout_.size(1)});
    return result;
  }

 private:
  const int64_t position_;
  const int64_t start_layer_;
  const int64_t length_;
  at::Tensor rollout_;  // [rows, rows]
};

}  // namespace

MethodEntry Entry() {
  MethodEntry entry;
  entry.spec.name = "attention-rollout";
  entry.spec.description =
      "The explained position's row of the product of all layers' matrices, "
      "each with the residual connection added and rows normalised. Follows "
      "information from token to token through the layers; independent of the "
      "target.";
  entry.spec.source = "arXiv:2005.00928; arXiv:2403.01590, equations 21-22";
  entry.spec.options = {
      {"start_layer", "first layer of the product, 0 to layers - 1; default 0"}};
  entry.need = AttentionNeed::kRows;
  entry.make = [](const AttributionContext& context)
      -> std::unique_ptr<Attribution> {
    return std::make_unique<AttentionRollout>(context);
  };
  entry.num_gradients = [](const MethodOptions&) -> int64_t { return 0; };
  entry.bytes = [](const Network&, const MethodOptions&, int64_t length,
                   int64_t) {
    return 4 * length * length * static_cast<int64_t>(sizeof(float));
  };
  return entry;
}

}  // namespace limpid::attributions::attention_rollout
