// SPDX-License-Identifier: Apache-2.0
//
// ALTI: contributions as shares of each stream, multiplied up over layers.
#include "server/attribution/alti.h"

#include "server/attribution/layer_rows.h"
#include "server/attribution/rollout_product.h"
#include "server/reduce/contributions.h"

namespace limpid::attributions::alti {
namespace {

class Alti final : public Attribution {
 public:
  explicit Alti(const AttributionContext& context) : context_(context) {}

  std::unique_ptr<MatrixReducer> MakeReducer(const BlockAttention& attention,
                                             RowRange rows) const override {
    return std::make_unique<ContributionReducer>(
        attention, context_.form, rows,
        ProximityMeasure(attention, context_.form));
  }

  absl::Status OnLayer(int64_t layer, const at::Tensor& matrix,
                       RowRange) override {
    if (layer >= context_.options.start_layer.value_or(0)) {
      product_.Multiply(matrix);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<AttributionResult>> Finish(
      const std::vector<ExplainedPoint>& points, const ProgressFunction&,
      const CancelToken&) override {
    std::vector<AttributionResult> results;
    for (const ExplainedPoint& point : points) {
      AttributionResult result;
      result.values =
          product_.Row(point.position, context_.embeddings[0].select(1, 0));
      results.push_back(std::move(result));
    }
    return results;
  }

 private:
  const AttributionContext context_;
  RolloutProduct product_;
};

}  // namespace

MethodEntry Entry() {
  MethodEntry entry;
  entry.spec.name = "alti";
  entry.spec.description =
      "What share of a position's residual stream comes from which position: "
      "by how much a contribution brings zero nearer to the stream after the "
      "block in the 1-norm, the residual connection included; shares add up to "
      "1 in every layer and are multiplied up over layers. Blocks between the "
      "mixers (MLPs) count as each position's own. Independent of the target "
      "and of the channel reduction.";
  entry.spec.source = "arXiv:2203.04212, for arXiv:2405.16504's matrices";
  entry.spec.options = {
      {"start_layer",
       "first layer of the product, 0 to layers - 1; default 0"}};
  entry.need = [](ChannelReduction) { return AttentionNeed::kRows; };
  entry.make =
      [](const AttributionContext& context) -> std::unique_ptr<Attribution> {
    return std::make_unique<Alti>(context);
  };
  entry.cost = [](const CostQuery& query) {
    MethodCost cost = CostOfContributions(query, AttentionNeed::kRows);
    cost.bytes += RolloutProduct::Bytes(query.length);
    return cost;
  };
  return entry;
}

}  // namespace limpid::attributions::alti
