// SPDX-License-Identifier: Apache-2.0
//
// Names of the reductions over channels. No Torch.
#pragma once

#include <optional>

#include "absl/strings/string_view.h"

namespace limpid {

// How alpha [D, L, L] becomes one matrix [L, L]; sums divide by D.
enum class ChannelReduction {
  kMeanAbs,  // mean |alpha|
  kMean,     // mean alpha
  kMeanPos,  // mean max(alpha, 0)
  kPosMean,  // max(mean alpha, 0)
  kMax,
  kMin,
  kL2,     // root of the mean square
  kWnorm,  // mean |alpha| weighted by the norm of the channel's column of the
           // output projection
  kAll,    // none: every channel by itself
};

// Names as the CLI spells them, for example "mean-abs".
absl::string_view ReductionName(ChannelReduction reduction);
std::optional<ChannelReduction> ParseReduction(absl::string_view name);

}  // namespace limpid
