// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/gradient.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

namespace limpid {

at::Tensor TargetScore(const at::Tensor& logits, const ResolvedTarget& target) {
  const at::Tensor score = logits.select(-1, target.id);
  return target.baseline_id ? score - logits.select(-1, *target.baseline_id)
                            : score;
}

absl::StatusOr<TargetGradient> GradientOfTarget(const Network& network,
                                                const at::Tensor& embeddings,
                                                int64_t position,
                                                const ResolvedTarget& target,
                                                Differentiation differentiation,
                                                const CancelToken& cancel) {
  const c10::AutoGradMode with_gradients(true);
  const at::Tensor input = embeddings.detach().requires_grad_(true);
  LIMPID_ASSIGN_OR_RETURN(
      const at::Tensor logits,
      network.ForwardDifferentiable(input, {position}, differentiation, cancel));
  const at::Tensor score = TargetScore(logits.select(1, 0), target);
  LIMPID_RETURN_IF_ERROR(cancel.Check());
  // Sequences of a batch do not mix, so the gradient of the sum holds each
  // one's own.
  const auto gradients = torch::autograd::grad({score.sum()}, {input});
  return TargetGradient{score.detach(), gradients[0]};
}

}  // namespace limpid
