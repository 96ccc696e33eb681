// SPDX-License-Identifier: Apache-2.0
//
// Integrated gradients along the straight line from a baseline to the input.
#include "server/attribution/integrated_gradients.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/attribution/baseline.h"
#include "server/attribution/gradient.h"
#include "server/attribution/quadrature.h"

namespace limpid::attributions::integrated_gradients {
namespace {

constexpr int64_t kDefaultSteps = 64;

int64_t StepsOf(const MethodOptions& options) {
  return options.steps.value_or(kDefaultSteps);
}

Quadrature NodesOf(const MethodOptions& options, const Baseline& baseline) {
  const bool from_zero = baseline.kind == Baseline::Kind::kZero;
  return MakeQuadrature(
      options.rule.value_or(from_zero ? IntegrationRule::kCubic
                                      : IntegrationRule::kMidpoint),
      StepsOf(options));
}

// Sums over noisy copies of the input, one per point.
struct Integral {
  at::Tensor elementwise;  // [L, E] float64
  at::Tensor gradient;     // [L, E], at the end of the path
  double difference = 0;   // of the scores at both ends
};

class IntegratedGradients final : public Attribution {
 public:
  explicit IntegratedGradients(const AttributionContext& context)
      : context_(context),
        baseline_(context.options.baseline.value_or(
            DefaultBaseline(context.network.info()))),
        nodes_(NodesOf(context.options, baseline_)) {}

  absl::StatusOr<std::vector<AttributionResult>> Finish(
      const std::vector<ExplainedPoint>& points,
      const ProgressFunction& progress, const CancelToken& cancel) override {
    const at::Tensor start = BaselineEmbeddings(context_, baseline_);
    const int64_t samples = NumSamples(context_.options);
    const int64_t steps = StepsOf(context_.options);
    std::vector<Integral> sums(points.size());
    for (int64_t i = 0; i < samples; ++i) {
      const auto report = [&](int64_t done, int64_t) {
        return progress(i * steps + done, samples * steps);
      };
      LIMPID_RETURN_IF_ERROR(AddPath(start, NoisyInputs(context_, i, 1)[0],
                                     points, sums, report, cancel));
    }
    std::vector<AttributionResult> results;
    for (Integral& sum : sums) {
      AttributionResult result;
      result.gradient = sum.gradient / samples;
      const at::Tensor elementwise = sum.elementwise / samples;
      result.elementwise = elementwise.to(start.dtype());
      result.values = elementwise.sum(1).to(start.dtype());
      result.completeness_error =
          elementwise.sum().item().toDouble() - sum.difference / samples;
      results.push_back(std::move(result));
    }
    return results;
  }

 private:
  absl::Status AddPath(const at::Tensor& start, const at::Tensor& end,
                       const std::vector<ExplainedPoint>& points,
                       std::vector<Integral>& sums,
                       const ProgressFunction& progress,
                       const CancelToken& cancel) const {
    const Network& network = context_.network;
    const at::Tensor path = end - start;
    const int64_t steps = StepsOf(context_.options);
    const int64_t batch =
        GradientBatch(network, context_.length(), context_.memory_bytes, steps);
    const auto gradients = [&](const at::Tensor& at_points) {
      return GradientsOfTargets(network, at_points, points,
                                Differentiation::kFull,
                                /*by_block_outputs=*/false, cancel);
    };
    // Gradients are summed in double precision: the weights are small and the
    // terms near the baseline large.
    std::vector<at::Tensor> integrals(
        points.size(), at::zeros({1}, path.options().dtype(at::kDouble)));
    for (int64_t step = 0; step < steps; step += batch) {
      const int64_t count = std::min(batch, steps - step);
      const auto column = [&](const std::vector<double>& values) {
        return at::tensor(at::ArrayRef<double>(values.data() + step, count),
                          at::kDouble)
            .to(path.device())
            .view({count, 1, 1});
      };
      LIMPID_ASSIGN_OR_RETURN(
          const std::vector<TargetGradient> on_path,
          gradients(start + column(nodes_.nodes).to(path.dtype()) * path));
      for (size_t i = 0; i < points.size(); ++i) {
        integrals[i] = integrals[i] +
                       (on_path[i].gradient * column(nodes_.weights)).sum(0);
      }
      LIMPID_RETURN_IF_ERROR(progress(step + count, steps));
    }
    // Both ends in one batch: the score for completeness, the gradient at the
    // input for callers who ask for it.
    LIMPID_ASSIGN_OR_RETURN(const std::vector<TargetGradient> ends,
                            gradients(at::stack({start, end})));
    for (size_t i = 0; i < points.size(); ++i) {
      const at::Tensor elementwise = integrals[i] * path;
      const at::Tensor scores = ends[i].score.to(at::kDouble);
      Integral& sum = sums[i];
      const bool first = !sum.elementwise.defined();
      sum.elementwise = first ? elementwise : sum.elementwise + elementwise;
      sum.gradient =
          first ? ends[i].gradient[1] : sum.gradient + ends[i].gradient[1];
      sum.difference += (scores[1] - scores[0]).item().toDouble();
    }
    return absl::OkStatus();
  }

  const AttributionContext context_;
  const Baseline baseline_;
  const Quadrature nodes_;
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
      {"baseline", std::string("where the line begins: ") + kBaselineChoices +
                       "; default zero, for pictures blur"},
      {"rule",
       "cubic, midpoint or gauss-legendre; default cubic from zero, else "
       "midpoint"}};
  for (OptionSpec& option : SmoothingOptions()) {
    entry.spec.options.push_back(std::move(option));
  }
  entry.need = [](ChannelReduction) { return AttentionNeed::kNothing; };
  entry.make =
      [](const AttributionContext& context) -> std::unique_ptr<Attribution> {
    return std::make_unique<IntegratedGradients>(context);
  };
  entry.cost = [](const CostQuery& query) -> MethodCost {
    const Network& network = query.network;
    const int64_t steps = StepsOf(query.options);
    // The two ends are always computed together.
    const int64_t batch = std::max<int64_t>(
        2, GradientBatch(network, query.length, query.memory_bytes, steps));
    const int64_t sums = 5 * query.num_points() * query.length *
                         network.info().hidden_size *
                         static_cast<int64_t>(sizeof(double));
    return {NumSamples(query.options) * (steps + 2) * GradientFlops(query),
            network.GradientBytes(batch, query.length) + sums};
  };
  return entry;
}

}  // namespace limpid::attributions::integrated_gradients
