// SPDX-License-Identifier: Apache-2.0
//
// Attention rollout: the layers' matrices, each with the residual connection
// added and its rows normalised, multiplied up.
#include "server/attribution/attention_rollout.h"

#include <ATen/ATen.h>

#include "server/attribution/rollout_product.h"

namespace limpid::attributions::attention_rollout {
namespace {

class AttentionRollout final : public Attribution {
 public:
  explicit AttentionRollout(const AttributionContext& context)
      : context_(context),
        start_layer_(context.options.start_layer.value_or(0)),
        residual_(context.options.residual_weight.value_or(1)) {}

  absl::Status OnLayer(int64_t layer, const at::Tensor& matrix,
                       RowRange) override {
    if (layer >= start_layer_) product_.MultiplyWithResidual(matrix, residual_);
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<AttributionResult>> Finish(
      const std::vector<ExplainedPoint>& points, const ProgressFunction&,
      const CancelToken& cancel) override {
    if (context_.reduction == ChannelReduction::kMean) {
      return WithoutMatrices(points, cancel);
    }
    std::vector<AttributionResult> results;
    for (const ExplainedPoint& point : points) {
      results.push_back({});
      results.back().values =
          product_.Row(point.position, context_.embeddings[0].select(1, 0));
    }
    return results;
  }

 private:
  // The mean over channels is linear in alpha, so the row can be carried from
  // the last layer down without any matrix.
  absl::StatusOr<std::vector<AttributionResult>> WithoutMatrices(
      const std::vector<ExplainedPoint>& points,
      const CancelToken& cancel) const {
    const int64_t length = context_.length();
    std::vector<at::Tensor> rows;  // [L] each
    for (const ExplainedPoint& point : points) {
      rows.push_back(at::zeros_like(context_.embeddings[0].select(1, 0)));
      rows.back()[point.position] = 1;
    }
    const auto visit = [&](int64_t layer, int64_t,
                           const BlockAttention& attention) -> absl::Status {
      if (layer < start_layer_) return absl::OkStatus();
      const auto on_channels = [&](const at::Tensor& row) {
        return row.unsqueeze(1)
            .expand({length, attention.num_channels()})
            .contiguous();
      };
      const at::Tensor sums =
          attention
              .Apply(
                  context_.form,
                  on_channels(at::ones({length}, attention.Stream().options())))
              .mean(1);
      for (at::Tensor& row : rows) {
        LIMPID_RETURN_IF_ERROR(cancel.Check());
        const at::Tensor scaled = row.to(sums.device()) / (sums + residual_);
        row = attention.ApplyTransposed(context_.form, on_channels(scaled))
                  .mean(1) +
              scaled * residual_;
      }
      return absl::OkStatus();
    };
    LIMPID_RETURN_IF_ERROR(
        context_.network.VisitBackwards(context_.embeddings, visit, cancel));
    std::vector<AttributionResult> results(rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      results[i].values = rows[i].to(context_.embeddings.device());
    }
    return results;
  }

  const AttributionContext context_;
  const int64_t start_layer_;
  const double residual_;
  RolloutProduct product_;
};

}  // namespace

MethodEntry Entry() {
  MethodEntry entry;
  entry.spec.name = "attention-rollout";
  entry.spec.description =
      "The explained position's row of the product of all layers' matrices, "
      "each with the residual connection added and rows normalised. Follows "
      "information from token to token through the layers; independent of the "
      "target. With the channel reduction mean no matrix is made.";
  entry.spec.source = "arXiv:2005.00928; arXiv:2403.01590, equations 21-22";
  entry.spec.options = {
      {"start_layer", "first layer of the product, 0 to layers - 1; default 0"},
      {"residual_weight",
       "weight of the residual connection beside the attention, 0 to 1000; "
       "default 1"}};
  entry.need = [](ChannelReduction reduction) {
    return reduction == ChannelReduction::kMean ? AttentionNeed::kNothing
                                                : AttentionNeed::kRows;
  };
  entry.make =
      [](const AttributionContext& context) -> std::unique_ptr<Attribution> {
    return std::make_unique<AttentionRollout>(context);
  };
  entry.cost = [](const CostQuery& query) -> MethodCost {
    if (query.reduction != ChannelReduction::kMean) {
      return {0, RolloutProduct::Bytes(query.length)};
    }
    // Twice through the network, and through every scan forwards once and
    // backwards once per point; the streams before all layers.
    const Network& network = query.network;
    return {network.ForwardFlops(query.length) * (3 + 2 * query.num_points()),
            network.GradientBytes(1, query.length)};
  };
  return entry;
}

}  // namespace limpid::attributions::attention_rollout
