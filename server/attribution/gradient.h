// SPDX-License-Identifier: Apache-2.0
//
// Gradients of the explained number by the embeddings.
#pragma once

#include <ATen/core/Tensor.h>

#include "server/attribution/method.h"

namespace limpid {

// The explained number at B inputs and its gradients.
struct TargetGradient {
  at::Tensor score;     // [B]
  at::Tensor gradient;  // [B, L, E]
};

// Runs the differentiable path on embeddings [B, L, E]; keeps no graph.
absl::StatusOr<TargetGradient> GradientOfTarget(const Network& network,
                                                const at::Tensor& embeddings,
                                                int64_t position,
                                                const ResolvedTarget& target,
                                                Differentiation differentiation,
                                                const CancelToken& cancel);

// The explained number of scores [..., V].
at::Tensor TargetScore(const at::Tensor& scores, const ResolvedTarget& target);

}  // namespace limpid
