// SPDX-License-Identifier: Apache-2.0
//
// Gradient times input: one backward pass.
#include "server/attribution/input_x_gradient.h"

#include <ATen/ATen.h>

#include "server/attribution/gradient.h"

namespace limpid::attributions::input_x_gradient {
namespace {

class InputXGradient final : public Attribution {
 public:
  explicit InputXGradient(const AttributionContext& context)
      : context_(context) {}

  absl::StatusOr<std::vector<AttributionResult>> Finish(
      const std::vector<ExplainedPoint>& points,
      const ProgressFunction& progress, const CancelToken& cancel) override {
    LIMPID_ASSIGN_OR_RETURN(
        const std::vector<TargetGradient> gradients,
        GradientsAtInput(context_, points, progress, cancel));
    std::vector<AttributionResult> results;
    for (const TargetGradient& at_input : gradients) {
      AttributionResult result;
      result.gradient = at_input.gradient[0];
      result.elementwise = result.gradient * context_.embeddings[0];
      result.values = result.elementwise.sum(1);
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
  entry.spec.name = "input-x-gradient";
  entry.spec.description =
      "Inner product of each token's embedding with the gradient of the "
      "target's logit by it: a first-order estimate of what the token adds to "
      "the logit.";
  entry.spec.source = "arXiv:1605.01713";
  entry.spec.uses_target = true;
  entry.spec.options = SmoothingOptions();
  entry.need = [](ChannelReduction) { return AttentionNeed::kNothing; };
  entry.make =
      [](const AttributionContext& context) -> std::unique_ptr<Attribution> {
    return std::make_unique<InputXGradient>(context);
  };
  entry.cost = CostOfGradientsAtInput;
  return entry;
}

}  // namespace limpid::attributions::input_x_gradient
