// SPDX-License-Identifier: Apache-2.0
//
// Scores of the input with some positions replaced, many variants at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "server/attribution/method.h"

namespace limpid {

// A number per sequence, [B], of its scores [B, V].
using ScoreFunction = std::function<at::Tensor(const at::Tensor& scores)>;

// What is read of every variant.
struct MaskedScore {
  int64_t readout = 0;
  ScoreFunction score;
};

// Scores [M, scores.size()] float64 on the CPU of M variants: positions where
// `replaced` [M, L] (bool, CPU) is true have the embedding of `replacement` [L,
// E]. As many run together as the memory allows.
absl::StatusOr<at::Tensor> ScoreVariants(const AttributionContext& context,
                                         const at::Tensor& replacement,
                                         const at::Tensor& replaced,
                                         const std::vector<MaskedScore>& scores,
                                         const ProgressFunction& progress,
                                         const CancelToken& cancel);
MethodCost CostOfVariants(const CostQuery& query, int64_t num_variants);

}  // namespace limpid
