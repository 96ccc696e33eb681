// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/method.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace limpid {
namespace {

void CheckRange(const char* field, std::optional<int64_t> value, int64_t min,
                int64_t max, Violations& violations) {
  if (value && (*value < min || *value > max)) {
    violations.Add(field, absl::StrCat("is ", *value, ", must be from ", min,
                                       " to ", max));
  }
}

}  // namespace

absl::Status Attribution::OnLayer(int64_t, const at::Tensor&) {
  return absl::OkStatus();
}

const MethodEntry* FindMethod(absl::string_view name) {
  for (const MethodEntry& entry : ListedMethodEntries()) {
    if (entry.spec.name == name) return &entry;
  }
  return nullptr;
}

const std::vector<MethodSpec>& ListedMethods() {
  static const auto* const specs = [] {
    auto* list = new std::vector<MethodSpec>;
    for (const MethodEntry& entry : ListedMethodEntries()) {
      list->push_back(entry.spec);
      // Callers are told the names even where a method serves them all.
      MethodSpec& method = list->back();
      const bool all = method.architectures.empty();
      for (const ArchitectureSpec& spec : ListedArchitectures()) {
        if (all) method.architectures.push_back(spec.id);
        if (spec.experimental &&
            std::find(method.architectures.begin(), method.architectures.end(),
                      spec.id) != method.architectures.end()) {
          method.experimental_architectures.push_back(spec.id);
        }
      }
    }
    return list;
  }();
  return *specs;
}

const MethodSpec* FindMethodSpec(absl::string_view name) {
  const MethodEntry* entry = FindMethod(name);
  return entry ? &entry->spec : nullptr;
}

void CheckOptions(const MethodSpec& spec, const MethodOptions& options,
                  const ModelInfo& info, Violations& violations) {
  std::vector<std::string> taken;
  for (const OptionSpec& option : spec.options) taken.push_back(option.name);
  for (const std::string& name : NamesOfSet(options)) {
    if (std::find(taken.begin(), taken.end(), name) != taken.end()) continue;
    violations.Add(absl::StrCat("options.", name),
                   absl::StrCat("method ", spec.name,
                                taken.empty()
                                    ? " takes no options"
                                    : absl::StrCat(" takes only: ",
                                                   absl::StrJoin(taken, ", "))));
  }
  const bool picture = info.modality == Modality::kImage;
  const int64_t last_token = info.vocabulary_size - 1;
  CheckRange("options.steps", options.steps, 8, 1024, violations);
  CheckRange("options.start_layer", options.start_layer, 0,
             info.num_layers - 1, violations);
  CheckRange("options.norm", options.norm, 1, 2, violations);
  CheckRange("options.smoothing_samples", options.smoothing_samples, 1, 256,
             violations);
  CheckRange("options.occlusion_token_id", options.occlusion_token_id, 0,
             last_token, violations);
  if (options.smoothing_noise &&
      !(*options.smoothing_noise >= 0 && *options.smoothing_noise <= 1)) {
    violations.Add("options.smoothing_noise", "must be from 0 to 1");
  }
  if (options.baseline) {
    if (options.baseline->kind == Baseline::Kind::kToken) {
      CheckRange("options.baseline.token_id", options.baseline->token_id, 0,
                 last_token, violations);
    } else if (options.baseline->kind == Baseline::Kind::kBlur) {
      violations.Add("options.baseline.blur",
                     picture ? "is not served yet; this model takes zero"
                             : "is for models that read pictures; this one "
                               "takes zero, mean or token_id");
    }
    if (picture && (options.baseline->kind == Baseline::Kind::kMean ||
                    options.baseline->kind == Baseline::Kind::kToken)) {
      violations.Add("options.baseline",
                     "mean and token_id are for models that read text; this "
                     "one takes zero");
    }
  }
}

}  // namespace limpid
