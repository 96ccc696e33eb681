// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/rows.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace limpid::evaluate {
namespace {

struct Entry {
  const char* method;
  bool has_form;
};
constexpr Entry kEntries[] = {
    {"gradient-norm", false},        {"input-x-gradient", false},
    {"integrated-gradients", false}, {"raw-attention", true},
    {"attention-rollout", true},     {"attention-gradient", true},
    {"value-contribution", false},   {"alti", false},
    {"frozen-linear", false},        {"occlusion", false},
};

template <typename List>
bool Contains(const List& list, const std::string& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace

RowPlan PlanRows(const v1::Model& model) {
  RowPlan plan;
  plan.rows.push_back({Row::Kind::kRandom, "random", "random", "", {}});
  for (const Entry& entry : kEntries) {
    const std::string method = entry.method;
    if (!Contains(model.methods(), method)) {
      plan.skipped.push_back(
          {method, absl::StrCat("not offered for ", model.architecture())});
      continue;
    }
    if (!entry.has_form) {
      plan.rows.push_back({Row::Kind::kMethod, method, method, method, {}});
      continue;
    }
    for (const auto& [name, form] :
         {std::pair{"state", v1::ATTENTION_FORM_STATE},
          std::pair{"full", v1::ATTENTION_FORM_FULL}}) {
      const std::string title = absl::StrCat(method, ", form ", name);
      if (!Contains(model.forms(), name)) {
        plan.skipped.push_back(
            {title, absl::StrCat(model.architecture(), " has no such form")});
        continue;
      }
      plan.rows.push_back({Row::Kind::kMethod, absl::StrCat(method, "-", name),
                           title, method, form});
    }
  }
  return plan;
}

Row ShuffledRow(const Row& row) {
  Row shuffled = row;
  shuffled.kind = Row::Kind::kShuffled;
  shuffled.key = absl::StrCat("shuffled-", row.key);
  shuffled.title = absl::StrCat("shuffled: ", row.title);
  return shuffled;
}

}  // namespace limpid::evaluate
