// SPDX-License-Identifier: Apache-2.0
//
// Deletion and insertion curves as plain data. No Torch.
#pragma once

#include <cstdint>
#include <vector>

#include "server/attribution/options.h"

namespace limpid {

// How an attribution is to be measured.
struct FaithfulnessRequest {
  int64_t random_orders = 8;
  int64_t seed = 0;
  Baseline replacement;
};

// The target's probability against the share of positions deleted or inserted.
struct FaithfulnessCurve {
  std::vector<float> fractions;  // ascending from 0 to 1
  std::vector<float> scores;
  double area = 0;         // by the trapezoid rule
  double random_area = 0;  // mean of the random orders
};

struct Faithfulness {
  FaithfulnessCurve deletion;
  FaithfulnessCurve insertion;
  int64_t random_orders = 0;
  int64_t seed = 0;
};

// Area under a curve by the trapezoid rule.
double AreaUnder(const std::vector<float>& fractions,
                 const std::vector<float>& scores);

}  // namespace limpid
