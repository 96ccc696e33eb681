// SPDX-License-Identifier: Apache-2.0
//
// Gradient times input of the frozen network, which is affine in its
// embeddings: the contributions and a constant add up to the score.
#include "server/attribution/frozen_linear.h"

#include <ATen/ATen.h>

#include "server/attribution/gradient.h"

namespace limpid::attributions::frozen_linear {
namespace {

class FrozenLinear final : public Attribution {
 public:
  explicit FrozenLinear(const AttributionContext& context)
      : context_(context) {}

  absl::StatusOr<std::vector<AttributionResult>> Finish(
      const std::vector<ExplainedPoint>& points,
      const ProgressFunction& progress, const CancelToken& cancel) override {
    const Network& network = context_.network;
    const at::Tensor& input = context_.embeddings;
    LIMPID_ASSIGN_OR_RETURN(
        const std::vector<TargetGradient> gradients,
        GradientsOfTargets(network, input, points, Differentiation::kFrozen,
                           /*by_block_outputs=*/false, cancel));
    LIMPID_RETURN_IF_ERROR(progress(1, 2));
    std::vector<int64_t> readouts;
    for (const ExplainedPoint& point : points) {
      readouts.push_back(point.readout);
    }
    LIMPID_ASSIGN_OR_RETURN(
        const at::Tensor constants,
        network.ForwardFrozen(input, at::zeros_like(input), readouts, cancel));
    LIMPID_RETURN_IF_ERROR(progress(2, 2));
    std::vector<AttributionResult> results;
    for (size_t i = 0; i < points.size(); ++i) {
      AttributionResult result;
      result.gradient = gradients[i].gradient[0];
      result.elementwise = result.gradient * input[0];
      result.values = result.elementwise.sum(1);
      result.constant =
          TargetScore(constants[0][static_cast<int64_t>(i)], points[i].target)
              .item()
              .toDouble();
      result.completeness_error =
          result.values.sum(at::kDouble).item().toDouble() + *result.constant -
          gradients[i].score.item().toDouble();
      results.push_back(std::move(result));
    }
    return results;
  }

 private:
  const AttributionContext context_;
};

}  // namespace

MethodEntry Entry() {
  MethodEntry entry;
  entry.spec.name = "frozen-linear";
  entry.spec.description =
      "What each token adds to the target's logit once every factor that "
      "depends on the data (gates, decays, steps, activation ratios, "
      "normalisers) is held at its value. The network is then linear: the "
      "contributions and the constant in the summary add up to the logit "
      "exactly. `gradient` is that of the frozen network.";
  entry.spec.source =
      "the end-to-end composition of arXiv:2405.16504's matrices; compare "
      "arXiv:2406.07592";
  entry.spec.uses_target = true;
  entry.spec.complete = true;
  entry.need = [](ChannelReduction) { return AttentionNeed::kNothing; };
  entry.make =
      [](const AttributionContext& context) -> std::unique_ptr<Attribution> {
    return std::make_unique<FrozenLinear>(context);
  };
  entry.cost = [](const CostQuery& query) -> MethodCost {
    const Network& network = query.network;
    // The tape of factors is at most what a backward pass would keep.
    return {GradientFlops(query) + 2 * network.ForwardFlops(query.length),
            network.GradientBytes(2, query.length)};
  };
  return entry;
}

}  // namespace limpid::attributions::frozen_linear
