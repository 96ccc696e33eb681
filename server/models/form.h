// SPDX-License-Identifier: Apache-2.0
//
// Names of the forms of an implicit attention matrix. No Torch.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace limpid {

// Which factors of the block a matrix holds (spec of the unified form:
// arXiv:2405.16504; which tensors a form maps is said by BlockAttention::Map).
enum class AttentionForm {
  kFull,          // the whole block
  kState,         // the recurrence alone
  kNoConv,        // without the short convolution
  kNoGate,        // without the gate
  kNoActivation,  // without the activation
  kNoNorm,        // without the normaliser, where the block has one
  kUpstream,      // as the papers' authors compute it: no skip, no bias
};

// A form and whether the recurrence's skip connection is part of it.
struct MatrixForm {
  AttentionForm form = AttentionForm::kFull;
  bool include_skip = true;

  bool operator==(const MatrixForm&) const = default;
};

// Names as the CLI spells them, for example "no-conv".
absl::string_view FormName(AttentionForm form);
std::optional<AttentionForm> ParseForm(absl::string_view name);

// The skip is part of every form but the recurrence alone and the authors'.
constexpr bool DefaultIncludeSkip(AttentionForm form) {
  return form != AttentionForm::kState && form != AttentionForm::kUpstream;
}

}  // namespace limpid
