// SPDX-License-Identifier: Apache-2.0
//
// Norm of the gradient: how far a small change of a token moves the target.
#include "server/attribution/gradient_norm.h"

#include <ATen/ATen.h>

#include "server/attribution/gradient.h"

namespace limpid::attributions::gradient_norm {
namespace {

class GradientNorm final : public Attribution {
 public:
  explicit GradientNorm(const AttributionContext& context)
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
      result.values =
          result.gradient.norm(context_.options.norm.value_or(2), {1});
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
  entry.spec.name = "gradient-norm";
  entry.spec.description =
      "Norm of the gradient of the target's logit by each token's embedding: "
      "how far a small change of the token moves the logit. Never negative.";
  entry.spec.source = "arXiv:1312.6034, section 3";
  entry.spec.uses_target = true;
  entry.spec.options = SmoothingOptions();
  entry.spec.options.insert(entry.spec.options.begin(),
                            {"norm", "order of the norm, 1 or 2; default 2"});
  entry.need = [](ChannelReduction) { return AttentionNeed::kNothing; };
  entry.make =
      [](const AttributionContext& context) -> std::unique_ptr<Attribution> {
    return std::make_unique<GradientNorm>(context);
  };
  entry.cost = CostOfGradientsAtInput;
  return entry;
}

}  // namespace limpid::attributions::gradient_norm
