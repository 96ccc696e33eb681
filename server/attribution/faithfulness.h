// SPDX-License-Identifier: Apache-2.0
//
// Deletion and insertion: how fast the target's probability falls when the
// positions with the largest attribution are replaced first, and how fast it
// rises when they are revealed first (arXiv:1806.07421).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "server/attribution/curves.h"
#include "server/attribution/method.h"

namespace limpid {

// `values` [L] on the CPU orders the `removable` positions, equal ones by
// place; NaN comes last. The score is the target's softmax probability, of a
// contrast that of its id against its baseline. At most 20 steps; the curves of
// the random orders serve both: inserting an order is deleting its reverse.
absl::StatusOr<Faithfulness> MeasureFaithfulness(
    const AttributionContext& context, const ExplainedPoint& point,
    const at::Tensor& values, std::vector<int64_t> removable,
    const FaithfulnessRequest& request, const ProgressFunction& progress,
    const CancelToken& cancel);

// For all points of the query.
MethodCost CostOfFaithfulness(const CostQuery& query,
                              const FaithfulnessRequest& request);

}  // namespace limpid
