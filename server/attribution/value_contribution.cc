// SPDX-License-Identifier: Apache-2.0
//
// How much each position adds to the stream of the explained one, per layer.
#include "server/attribution/value_contribution.h"

#include "server/attribution/layer_rows.h"
#include "server/reduce/contributions.h"

namespace limpid::attributions::value_contribution {
namespace {

class ValueContribution final : public LayerRows {
 public:
  using LayerRows::LayerRows;

  std::unique_ptr<MatrixReducer> MakeReducer(const BlockAttention& attention,
                                             RowRange rows) const override {
    return std::make_unique<ContributionReducer>(
        attention, context_.form, rows,
        NormMeasure(context_.options.norm.value_or(2)));
  }
};

}  // namespace

MethodEntry Entry() {
  MethodEntry entry;
  entry.spec.name = "value-contribution";
  entry.spec.description =
      "Norm of the vector that each position adds to the residual stream of "
      "the explained one through a block: attention times value, projected. "
      "The vectors and the projected bias add up to the block's output. "
      "Averaged over layers; independent of the target and of the channel "
      "reduction.";
  entry.spec.source = "arXiv:2004.10102, for arXiv:2405.16504's matrices";
  entry.spec.options = {
      {"norm", "order of the norm, 1 or 2; default 2"},
      {"start_layer",
       "first layer of the average, 0 to layers - 1; default 0"}};
  entry.need = [](ChannelReduction) { return AttentionNeed::kRow; };
  entry.make =
      [](const AttributionContext& context) -> std::unique_ptr<Attribution> {
    return std::make_unique<ValueContribution>(context);
  };
  entry.cost = [](const CostQuery& query) {
    return CostOfContributions(query, AttentionNeed::kRow);
  };
  return entry;
}

}  // namespace limpid::attributions::value_contribution
