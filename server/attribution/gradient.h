// SPDX-License-Identifier: Apache-2.0
//
// Gradients of explained numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "server/attribution/method.h"

namespace limpid {

// An explained number at B inputs and its gradients.
struct TargetGradient {
  at::Tensor score;     // [B]
  at::Tensor gradient;  // [B, L, E], by the embeddings
  // By what each block adds to the stream, [B, L, E] per layer, if asked for.
  std::vector<at::Tensor> block_outputs;
};

// Runs the differentiable path once on embeddings [B, L, E], and back once per
// point; keeps no graph.
absl::StatusOr<std::vector<TargetGradient>> GradientsOfTargets(
    const Network& network, const at::Tensor& embeddings,
    const std::vector<ExplainedPoint>& points, Differentiation differentiation,
    bool by_block_outputs, const CancelToken& cancel);

// Gradients at the input, averaged over noisy copies of it where the options
// ask for that (SmoothGrad, arXiv:1706.03825): [1, L, E] each.
absl::StatusOr<std::vector<TargetGradient>> GradientsAtInput(
    const AttributionContext& context,
    const std::vector<ExplainedPoint>& points, const ProgressFunction& progress,
    const CancelToken& cancel);
MethodCost CostOfGradientsAtInput(const CostQuery& query);

// Operations of a forward pass and one backward pass per point.
double GradientFlops(const CostQuery& query);

// The explained number of scores [..., V].
at::Tensor TargetScore(const at::Tensor& scores, const ResolvedTarget& target);

// Copies of the input with the noise of the options, [count, L, E]; the same
// for the same `first`, the number of the first copy. Without smoothing the
// input itself.
at::Tensor NoisyInputs(const AttributionContext& context, int64_t first,
                       int64_t count);
int64_t NumSamples(const MethodOptions& options);

// As many sequences at once as the memory allows, 1 to `most`.
int64_t GradientBatch(const Network& network, int64_t length,
                      int64_t memory_bytes, int64_t most);

// The options of smoothing, for a method's spec.
std::vector<OptionSpec> SmoothingOptions();

}  // namespace limpid
