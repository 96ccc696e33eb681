// SPDX-License-Identifier: Apache-2.0
//
// The explained positions' rows of every layer, averaged over layers: what
// methods that look at one row have in common.
#pragma once

#include <vector>

#include "server/attribution/method.h"

namespace limpid {

class LayerRows : public Attribution {
 public:
  explicit LayerRows(const AttributionContext& context) : context_(context) {}

  absl::Status OnLayer(int64_t layer, const at::Tensor& matrix,
                       RowRange rows) override;
  absl::StatusOr<std::vector<AttributionResult>> Finish(
      const std::vector<ExplainedPoint>& points,
      const ProgressFunction& progress, const CancelToken& cancel) override;

  static MethodCost Cost(const CostQuery& query);

 protected:
  const AttributionContext context_;

 private:
  std::vector<std::vector<at::Tensor>> rows_;  // of each point, of each layer
};

// Of methods that make contributions (reduce/contributions.h) of the rows that
// they need.
MethodCost CostOfContributions(const CostQuery& query, AttentionNeed need);

}  // namespace limpid
