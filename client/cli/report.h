// SPDX-License-Identifier: Apache-2.0
//
// Explanations as an HTML report.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "client/cli/pictures.h"
#include "client/explanation.h"

namespace limpid::cli {

// The file; of several explanations of one input, to be compared. With every
// channel in a reply, the report offers several reductions. INVALID_ARGUMENT
// without any explanation, or for one that can't be shown.
absl::StatusOr<std::string> ReportHtml(
    std::span<const Explanation> explanations, bool matrices,
    const std::optional<Underlay>& underlay);

}  // namespace limpid::cli
