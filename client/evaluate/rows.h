// SPDX-License-Identifier: Apache-2.0
//
// The rows of every table: which methods are judged for a model, in which form.
#pragma once

#include <string>
#include <vector>

#include "limpid/v1/explanation.pb.h"
#include "limpid/v1/model.pb.h"

namespace limpid::evaluate {

struct Row {
  enum class Kind { kRandom, kMethod, kShuffled };
  Kind kind = Kind::kMethod;
  std::string key;     // names its file: "raw-attention-full"
  std::string title;   // "raw-attention, form full"
  std::string method;  // empty for random
  // ATTENTION_FORM_UNSPECIFIED where the method has no form.
  v1::AttentionForm form = v1::ATTENTION_FORM_UNSPECIFIED;
};

// A row that a model can't have.
struct SkippedRow {
  std::string title;
  std::string reason;
};

struct RowPlan {
  std::vector<Row> rows;
  std::vector<SkippedRow> skipped;
};

// Random first, then the methods in a fixed order, those that look at attention
// once per form (state and full).
RowPlan PlanRows(const v1::Model& model);

// The negative control of a row: its attributions in random order.
Row ShuffledRow(const Row& row);

}  // namespace limpid::evaluate
