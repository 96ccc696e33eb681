// SPDX-License-Identifier: Apache-2.0
//
// Several explanations of one input, brought onto the same units, and how far
// they agree.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/explanation.h"

namespace limpid::cli {

// Values of all explanations on common units: tokens where all have the same
// ones, else words, else patches of a grid.
struct Comparison {
  std::string unit;                 // "token", "word" or "patch"
  std::vector<std::string> labels;  // any bytes; empty for patches
  // [explanation][unit]
  std::vector<std::vector<float>> values;
};

// INVALID_ARGUMENT if they have no units in common. Words are taken from the
// sums over words, which the requests must have asked for.
absl::StatusOr<Comparison> Compare(std::span<const Explanation> explanations);

// Spearman's rank correlation, -1 to 1, ties at their mean rank. NaN if one of
// the two is constant or the sizes differ.
double RankCorrelation(std::span<const float> a, std::span<const float> b);

// How many of the `k` units with the largest absolute values of one are among
// those of the other.
size_t TopOverlap(std::span<const float> a, std::span<const float> b, size_t k);

}  // namespace limpid::cli
