// SPDX-License-Identifier: Apache-2.0
//
// What positive and negative perturbation of texts and of pictures share:
// 10, 20, ... 90 % of the input are removed, and it is watched whether the
// model's answer stays.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "client/evaluate/protocol.h"

namespace limpid::evaluate {

// first/10, ..., last/10.
std::vector<double> Tenths(int first, int last);

// Whether the answer is still the same without the first `removed` of `order`.
using StaysSame = std::function<absl::StatusOr<bool>(
    const std::vector<size_t>& order, size_t removed)>;

// Scores: areas (positive, negative), plain means, and both curves. `order`:
// most relevant first.
absl::StatusOr<std::vector<double>> JudgePerturbation(
    const std::vector<size_t>& order, const StaysSame& stays_same);

// Columns and curves of those scores.
std::vector<Figure> PerturbationFigures();
std::vector<Curve> PerturbationCurves();

}  // namespace limpid::evaluate
