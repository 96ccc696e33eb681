// SPDX-License-Identifier: Apache-2.0
#include "server/models/form.h"

#include <array>
#include <utility>

namespace limpid {
namespace {

constexpr std::array<std::pair<AttentionForm, const char*>, 7> kNames = {{
    {AttentionForm::kFull, "full"},
    {AttentionForm::kState, "state"},
    {AttentionForm::kNoConv, "no-conv"},
    {AttentionForm::kNoGate, "no-gate"},
    {AttentionForm::kNoActivation, "no-activation"},
    {AttentionForm::kNoNorm, "no-norm"},
    {AttentionForm::kUpstream, "upstream"},
}};

}  // namespace

absl::string_view FormName(AttentionForm form) {
  for (const auto& [value, name] : kNames) {
    if (value == form) return name;
  }
  return "unknown";
}

std::optional<AttentionForm> ParseForm(absl::string_view name) {
  for (const auto& [value, text] : kNames) {
    if (name == text) return value;
  }
  return std::nullopt;
}

}  // namespace limpid
