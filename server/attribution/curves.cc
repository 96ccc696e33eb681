// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/curves.h"

namespace limpid {

double AreaUnder(const std::vector<float>& fractions,
                 const std::vector<float>& scores) {
  double area = 0;
  for (size_t i = 1; i < fractions.size(); ++i) {
    area += 0.5 * (static_cast<double>(scores[i]) + scores[i - 1]) *
            (static_cast<double>(fractions[i]) - fractions[i - 1]);
  }
  return area;
}

}  // namespace limpid
