// SPDX-License-Identifier: Apache-2.0
//
// What a request can say to a method. No Torch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace limpid {

// Embeddings that stand for "nothing there": where integrated gradients begin,
// what replaces an occluded or deleted token.
struct Baseline {
  enum class Kind { kZero, kMean, kToken, kTokens, kBlur };
  Kind kind = Kind::kZero;
  int64_t token_id = 0;            // kToken
  std::vector<int64_t> token_ids;  // kTokens: one per position
};

enum class IntegrationRule { kCubic, kMidpoint, kGaussLegendre };
enum class GradientAxis { kSource, kTarget };
enum class GradientReduction { kMean, kMaxRelu };
enum class Compatibility { kNone, kUpstream };

// Options as they were given; an empty one takes the method's default. Which
// method takes which is said by MethodSpec::options.
struct MethodOptions {
  std::optional<int64_t> steps;
  std::optional<Baseline> baseline;
  std::optional<IntegrationRule> rule;
  std::optional<int64_t> start_layer;
  std::optional<GradientAxis> axis;
  std::optional<Compatibility> compat;
  std::optional<int64_t> norm;
  std::optional<bool> special_tokens;
  std::optional<int64_t> smoothing_samples;
  std::optional<double> smoothing_noise;
  std::optional<int64_t> seed;
  std::optional<int64_t> occlusion_window;
  std::optional<double> residual_weight;
  std::optional<GradientReduction> gradient_reduction;
};

// Names of the options that are set, as fields of the proto ("steps").
std::vector<std::string> NamesOfSet(const MethodOptions& options);

// The number that is explained: logit[id], or logit[id] - logit[baseline_id].
struct ResolvedTarget {
  int64_t id = 0;
  std::optional<int64_t> baseline_id;
};

}  // namespace limpid
