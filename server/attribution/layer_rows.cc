// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/layer_rows.h"

#include <ATen/ATen.h>

#include "server/reduce/contributions.h"

namespace limpid {

absl::Status LayerRows::OnLayer(int64_t, const at::Tensor& matrix,
                                RowRange rows) {
  rows_.resize(context_.positions.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    rows_[i].push_back(
        matrix.select(0, context_.positions[i] - rows.begin).clone());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<AttributionResult>> LayerRows::Finish(
    const std::vector<ExplainedPoint>&, const ProgressFunction&,
    const CancelToken&) {
  std::vector<AttributionResult> results;
  for (const std::vector<at::Tensor>& rows : rows_) {
    AttributionResult result;
    result.layers = at::stack(rows);
    result.values =
        result.layers.slice(0, context_.options.start_layer.value_or(0))
            .mean(0);
    results.push_back(std::move(result));
  }
  return results;
}

MethodCost LayerRows::Cost(const CostQuery& query) {
  return {0, 2 * query.network.info().num_layers * query.num_points() *
                 query.length * static_cast<int64_t>(sizeof(double))};
}

MethodCost CostOfContributions(const CostQuery& query, AttentionNeed need) {
  const ModelInfo& info = query.network.info();
  const RowRange rows =
      RowsFor(need, query.positions, info.causal, query.length);
  MethodCost cost = LayerRows::Cost(query);
  cost.flops += 2.0 * info.num_layers * rows.size() * query.length *
                info.num_channels * info.hidden_size;
  cost.bytes += ContributionReducer::Bytes(query.length, info.hidden_size);
  return cost;
}

}  // namespace limpid
