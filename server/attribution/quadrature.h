// SPDX-License-Identifier: Apache-2.0
//
// Nodes and weights for an integral over [0, 1]. No Torch.
#pragma once

#include <cstdint>
#include <vector>

#include "server/attribution/options.h"

namespace limpid {

struct Quadrature {
  std::vector<double> nodes;    // ascending, inside (0, 1)
  std::vector<double> weights;  // of the same size
};

// `steps` is 1 or more. The cubic rule takes midpoints u of equal steps to
// nodes u^3 with weights 3 u^2 / steps.
Quadrature MakeQuadrature(IntegrationRule rule, int64_t steps);

}  // namespace limpid
