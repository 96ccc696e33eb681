// SPDX-License-Identifier: Apache-2.0
//
// Integrated gradients along the straight line from a baseline to the input.
#include "server/attribution/integrated_gradients.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "server/attribution/gradient.h"
#include "server/attribution/quadrature.h"

namespace limpid::attributions::integrated_gradients {
namespace {

constexpr int64_t kDefaultSteps = 64;
// More sequences at once do not pay on any device seen so far.
constexpr int64_t kLargestBatch = 64;

int64_t BatchSize(const Network& network, const MethodOptions& options,
                  int64_t length, int64_t memory_bytes) {
  const int64_t each = std::max<int64_t>(1, network.GradientBytes(1, length));
  return std::clamp<int64_t>(
      memory_bytes / each, 1,
      std::min(kLargestBatch, options.steps.value_or(kDefaultSteps)));
}

class IntegratedGradients final : public Attribution {
 public:
  explicit IntegratedGradients(const AttributionContext& context)
      : context_(context) {}

  absl::StatusOr<AttributionResult> Finish(const ResolvedTarget& target,
                                           const ProgressFunction& progress,
                                           const CancelToken& cancel) override {
    const MethodOptions& options = context_.options;
    const Network& network = context_.network;
    const at::Tensor input = context_.embeddings[0];
    const Baseline baseline = options.baseline.value_or(Baseline());
    const at::Tensor start = StartOf(baseline);
    const at::Tensor path = input - start;
    const int64_t steps = options.steps.value_or(kDefaultSteps);
    const Quadrature nodes = MakeQuadrature(
        options.rule.value_or(baseline.kind == Baseline::Kind::kZero
                                  ? IntegrationRule::kCubic
                                  : IntegrationRule::kMidpoint),
        steps);

    // Gradients are summed in double precision: the weights are small and the
    // terms near the baseline large.
    at::Tensor integral = at::zeros_like(path, path.options().dtype(at::kDouble));
    const int64_t batch = BatchSize(network, options, input.size(0),
                                    context_.memory_bytes);
    for (int64_t step = 0; step < steps; step += batch) {
      LIMPID_RETURN_IF_ERROR(cancel.Check());
      const int64_t count = std::min(batch, steps - step);
      const auto column = [&](const std::vector<double>& values) {
        return at::tensor(at::ArrayRef<double>(values.data() + step, count),
                          at::kDouble)
            .to(path.device())
            .view({count, 1, 1});
      };
      const at::Tensor points =
          start + column(nodes.nodes).to(path.dtype()) * path;
      LIMPID_ASSIGN_OR_RETURN(
          const TargetGradient at_points,
          GradientOfTarget(network, points, context_.readout, target,
                           Differentiation::kFull, cancel));
      integral += (at_points.gradient * column(nodes.weights)).sum(0);
      LIMPID_RETURN_IF_ERROR(progress(step + count, steps));
    }

    // Both ends in one batch: the score for completeness, the gradient at the
    // input for callers who ask for it.
    LIMPID_ASSIGN_OR_RETURN(
        const TargetGradient ends,
        GradientOfTarget(network, at::stack({start, input}), context_.readout,
                         target, Differentiation::kFull, cancel));
    AttributionResult result;
    result.gradient = ends.gradient[1];
    const at::Tensor elementwise = integral * path;
    result.elementwise = elementwise.to(path.dtype());
    result.values = elementwise.sum(1).to(path.dtype());
    const at::Tensor scores = ends.score.to(at::kDouble);
    result.completeness_error =
        (elementwise.sum() - (scores[1] - scores[0])).item().toDouble();
    return result;
  }

 private:
  // The baseline sequence, [L, E].
  at::Tensor StartOf(const Baseline& baseline) const {
    const at::Tensor input = context_.embeddings[0];
    switch (baseline.kind) {
      case Baseline::Kind::kMean:
        return context_.network.MeanEmbedding().expand_as(input);
      case Baseline::Kind::kToken:
        // Through the network, since an embedding may be more than a row of
        // the table.
        return context_.network.Embed(
            {at::full({1, input.size(0)}, baseline.token_id, at::kLong),
             at::Tensor()})[0];
      default:
        return at::zeros_like(input);
    }
  }

  const AttributionContext context_;
};

}  // namespace

MethodEntry Entry() {
  MethodEntry entry;
  entry.spec.name = "integrated-gradients";
  entry.spec.description =
      "Gradients of the target's logit averaged along the line from a baseline "
      "to the input, times the difference of the two. Adds up to the "
      "difference of the logits at both ends, up to the stated completeness "
      "error.";
  entry.spec.source = "arXiv:1703.01365, equation 1";
  entry.spec.uses_target = true;
  entry.spec.complete = true;
  entry.spec.options = {
      {"steps", "points on the line, 8 to 1024; default 64"},
      {"baseline",
       "zero, mean (of the embedding table) or token:ID; default zero"},
      {"rule",
       "cubic, midpoint or gauss-legendre; default cubic for the zero "
       "baseline, else midpoint"}};
  entry.make = [](const AttributionContext& context)
      -> std::unique_ptr<Attribution> {
    return std::make_unique<IntegratedGradients>(context);
  };
  entry.num_gradients = [](const MethodOptions& options) {
    return options.steps.value_or(kDefaultSteps) + 2;
  };
  entry.bytes = [](const Network& network, const MethodOptions& options,
                   int64_t length, int64_t memory_bytes) {
    // The two ends are always computed together.
    const int64_t batch =
        std::max<int64_t>(2, BatchSize(network, options, length, memory_bytes));
    return network.GradientBytes(batch, length);
  };
  return entry;
}

}  // namespace limpid::attributions::integrated_gradients
