// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/options.h"

namespace limpid {

std::vector<std::string> NamesOfSet(const MethodOptions& options) {
  std::vector<std::string> names;
  const auto note = [&](bool set, const char* name) {
    if (set) names.emplace_back(name);
  };
  note(options.steps.has_value(), "steps");
  note(options.baseline.has_value(), "baseline");
  note(options.rule.has_value(), "rule");
  note(options.start_layer.has_value(), "start_layer");
  note(options.axis.has_value(), "axis");
  note(options.compat.has_value(), "compat");
  note(options.norm.has_value(), "norm");
  note(options.special_tokens.has_value(), "special_tokens");
  note(options.smoothing_samples.has_value(), "smoothing_samples");
  note(options.smoothing_noise.has_value(), "smoothing_noise");
  note(options.seed.has_value(), "seed");
  note(options.occlusion_window.has_value(), "occlusion_window");
  note(options.residual_weight.has_value(), "residual_weight");
  note(options.gradient_reduction.has_value(), "gradient_reduction");
  return names;
}

}  // namespace limpid
