// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/gradient.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

namespace limpid {
namespace {

// More sequences at once do not pay on any device seen so far.
constexpr int64_t kLargestBatch = 64;
constexpr double kDefaultNoise = 0.1;

}  // namespace

at::Tensor TargetScore(const at::Tensor& scores, const ResolvedTarget& target) {
  const at::Tensor score = scores.select(-1, target.id);
  return target.baseline_id ? score - scores.select(-1, *target.baseline_id)
                            : score;
}

int64_t NumSamples(const MethodOptions& options) {
  return options.smoothing_samples.value_or(1);
}

int64_t GradientBatch(const Network& network, int64_t length,
                      int64_t memory_bytes, int64_t most) {
  const int64_t each = std::max<int64_t>(1, network.GradientBytes(1, length));
  return std::clamp<int64_t>(memory_bytes / each, 1,
                             std::min(kLargestBatch, most));
}

double GradientFlops(const CostQuery& query) {
  // A backward pass costs about two forward passes.
  return query.network.ForwardFlops(query.length) *
         (1 + 2.0 * query.num_points());
}

absl::StatusOr<std::vector<TargetGradient>> GradientsOfTargets(
    const Network& network, const at::Tensor& embeddings,
    const std::vector<ExplainedPoint>& points, Differentiation differentiation,
    bool by_block_outputs, const CancelToken& cancel) {
  const c10::AutoGradMode with_gradients(true);
  std::vector<int64_t> readouts;
  for (const ExplainedPoint& point : points) readouts.push_back(point.readout);
  const at::Tensor input = embeddings.detach().requires_grad_(true);
  std::vector<at::Tensor> sources = {input};
  std::vector<at::Tensor> outputs;
  LIMPID_ASSIGN_OR_RETURN(const at::Tensor scores,
                          network.ForwardDifferentiable(
                              input, readouts, differentiation,
                              by_block_outputs ? &outputs : nullptr, cancel));
  sources.insert(sources.end(), outputs.begin(), outputs.end());

  std::vector<TargetGradient> results;
  for (size_t i = 0; i < points.size(); ++i) {
    LIMPID_RETURN_IF_ERROR(cancel.Check());
    const at::Tensor score = TargetScore(
        scores.select(1, static_cast<int64_t>(i)), points[i].target);
    // Sequences of a batch do not mix, so the gradient of the sum holds each
    // one's own.
    auto gradients =
        torch::autograd::grad({score.sum()}, sources, /*grad_outputs=*/{},
                              /*retain_graph=*/i + 1 < points.size());
    TargetGradient result{score.detach(), gradients[0], {}};
    for (size_t layer = 1; layer < gradients.size(); ++layer) {
      result.block_outputs.push_back(gradients[layer].to(input.device()));
    }
    results.push_back(std::move(result));
  }
  return results;
}

at::Tensor NoisyInputs(const AttributionContext& context, int64_t first,
                       int64_t count) {
  const at::Tensor& input = context.embeddings;
  const MethodOptions& options = context.options;
  if (NumSamples(options) == 1) return input;
  const double deviation = options.smoothing_noise.value_or(kDefaultNoise) *
                           (input.max() - input.min()).item().toDouble();
  std::vector<at::Tensor> copies;
  for (int64_t i = first; i < first + count; ++i) {
    // On the CPU, so that every device sees the same noise.
    const at::Generator generator = at::detail::createCPUGenerator(
        static_cast<uint64_t>(options.seed.value_or(0)) + i);
    const at::Tensor noise =
        at::randn(input.sizes(), generator, input.options().device(at::kCPU));
    copies.push_back(input + deviation * noise.to(input.device()));
  }
  return at::cat(copies);
}

absl::StatusOr<std::vector<TargetGradient>> GradientsAtInput(
    const AttributionContext& context,
    const std::vector<ExplainedPoint>& points, const ProgressFunction& progress,
    const CancelToken& cancel) {
  const int64_t samples = NumSamples(context.options);
  const int64_t batch = GradientBatch(context.network, context.length(),
                                      context.memory_bytes, samples);
  std::vector<TargetGradient> sums;
  for (int64_t first = 0; first < samples; first += batch) {
    const int64_t count = std::min(batch, samples - first);
    LIMPID_ASSIGN_OR_RETURN(
        const std::vector<TargetGradient> parts,
        GradientsOfTargets(context.network, NoisyInputs(context, first, count),
                           points, Differentiation::kFull,
                           /*by_block_outputs=*/false, cancel));
    for (size_t i = 0; i < parts.size(); ++i) {
      const at::Tensor score = parts[i].score.sum(0, /*keepdim=*/true);
      const at::Tensor gradient = parts[i].gradient.sum(0, /*keepdim=*/true);
      if (first == 0) {
        sums.push_back({score, gradient, {}});
      } else {
        sums[i].score += score;
        sums[i].gradient += gradient;
      }
    }
    LIMPID_RETURN_IF_ERROR(progress(first + count, samples));
  }
  for (TargetGradient& sum : sums) {
    sum.score /= samples;
    sum.gradient /= samples;
  }
  return sums;
}

MethodCost CostOfGradientsAtInput(const CostQuery& query) {
  const int64_t samples = NumSamples(query.options);
  const int64_t batch =
      GradientBatch(query.network, query.length, query.memory_bytes, samples);
  const int64_t sums = 3 * query.num_points() * query.length *
                       query.network.info().hidden_size *
                       static_cast<int64_t>(sizeof(double));
  return {samples * GradientFlops(query),
          query.network.GradientBytes(batch, query.length) + sums};
}

std::vector<OptionSpec> SmoothingOptions() {
  return {{"smoothing_samples",
           "noisy copies over which gradients are averaged (SmoothGrad), 1 to "
           "256; default 1: off"},
          {"smoothing_noise",
           "standard deviation of their noise relative to the range of the "
           "embeddings, 0 to 1; default 0.1"},
          {"seed", "seed of the noise; default 0"}};
}

}  // namespace limpid
