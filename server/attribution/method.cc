// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/method.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace limpid {
namespace {

void CheckRange(const std::string& field, std::optional<int64_t> value,
                int64_t min, int64_t max, Violations& violations) {
  if (value && (*value < min || *value > max)) {
    violations.Add(field, absl::StrCat("is ", *value, ", must be from ", min,
                                       " to ", max));
  }
}

// Of every method: what it does is done to the values of any.
OptionSpec SpecialTokensOption() {
  return {"special_tokens",
          "whether special tokens of the vocabulary receive attribution; else "
          "theirs is 0; default true"};
}

}  // namespace

std::unique_ptr<MatrixReducer> Attribution::MakeReducer(const BlockAttention&,
                                                        RowRange) const {
  return nullptr;
}

absl::Status Attribution::OnLayer(int64_t, const at::Tensor&, RowRange) {
  return absl::OkStatus();
}

RowRange RowsFor(AttentionNeed need, const std::vector<int64_t>& positions,
                 bool causal, int64_t length) {
  const auto [first, last] =
      std::minmax_element(positions.begin(), positions.end());
  switch (need) {
    case AttentionNeed::kRow:
      return {*first, *last + 1};
    case AttentionNeed::kRows:
      return {0, causal ? *last + 1 : length};
    default:
      return {};
  }
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
      method.options.push_back(SpecialTokensOption());
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
                  const ModelInfo& info, int64_t length,
                  Violations& violations) {
  std::vector<std::string> taken;
  for (const OptionSpec& option : spec.options) taken.push_back(option.name);
  taken.push_back(SpecialTokensOption().name);
  for (const std::string& name : NamesOfSet(options)) {
    if (std::find(taken.begin(), taken.end(), name) != taken.end()) continue;
    violations.Add(
        absl::StrCat("options.", name),
        absl::StrCat("method ", spec.name,
                     taken.empty() ? " takes no options"
                                   : absl::StrCat(" takes only: ",
                                                  absl::StrJoin(taken, ", "))));
  }
  CheckRange("options.steps", options.steps, 8, 1024, violations);
  CheckRange("options.start_layer", options.start_layer, 0, info.num_layers - 1,
             violations);
  CheckRange("options.norm", options.norm, 1, 2, violations);
  CheckRange("options.smoothing_samples", options.smoothing_samples, 1, 256,
             violations);
  CheckRange("options.occlusion_window", options.occlusion_window, 1, 64,
             violations);
  if (options.smoothing_noise &&
      !(*options.smoothing_noise >= 0 && *options.smoothing_noise <= 1)) {
    violations.Add("options.smoothing_noise", "must be from 0 to 1");
  }
  if (options.residual_weight &&
      !(*options.residual_weight >= 0 && *options.residual_weight <= 1000)) {
    violations.Add("options.residual_weight", "must be from 0 to 1000");
  }
  if (options.baseline) {
    CheckBaseline("options.baseline", *options.baseline, info, length,
                  violations);
  }
}

void CheckBaseline(const std::string& path, const Baseline& baseline,
                   const ModelInfo& info, int64_t length,
                   Violations& violations) {
  const bool picture = info.modality == Modality::kImage;
  const int64_t last_token = info.vocabulary_size - 1;
  switch (baseline.kind) {
    case Baseline::Kind::kZero:
      return;
    case Baseline::Kind::kBlur:
      if (!picture) {
        violations.Add(path + ".blur",
                       "is for models that read pictures; this one takes zero, "
                       "mean, token_id or tokens");
      }
      return;
    default:
      break;
  }
  if (picture) {
    violations.Add(path,
                   "mean, token_id and tokens are for models that read text; "
                   "this one takes zero or blur");
    return;
  }
  if (baseline.kind == Baseline::Kind::kToken) {
    CheckRange(path + ".token_id", baseline.token_id, 0, last_token,
               violations);
  } else if (baseline.kind == Baseline::Kind::kTokens) {
    const auto count = static_cast<int64_t>(baseline.token_ids.size());
    if (count != length) {
      violations.Add(path + ".tokens.ids",
                     absl::StrCat("has ", count, " ids, the input has ", length,
                                  " tokens: it must have as many"));
    }
    for (size_t i = 0; i < baseline.token_ids.size(); ++i) {
      const int64_t id = baseline.token_ids[i];
      if (id >= 0 && id <= last_token) continue;
      violations.Add(
          absl::StrCat(path, ".tokens.ids[", i, "]"),
          absl::StrCat("token id ", id, ", must be from 0 to ", last_token));
      // One is enough to find the mistake; there can be thousands.
      break;
    }
  }
}

}  // namespace limpid
