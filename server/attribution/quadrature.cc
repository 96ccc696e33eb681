// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/quadrature.h"

#include <cmath>
#include <numbers>

namespace limpid {
namespace {

// Roots of the Legendre polynomial P_n by Newton's method from Chebyshev-like
// first guesses, mapped from [-1, 1] to [0, 1].
Quadrature GaussLegendre(int64_t n) {
  Quadrature out;
  out.nodes.resize(n);
  out.weights.resize(n);
  for (int64_t i = 0; i < n; ++i) {
    double x = std::cos(std::numbers::pi * (i + 0.75) / (n + 0.5));
    double derivative = 1;
    for (int iteration = 0; iteration < 100; ++iteration) {
      double previous = 1, value = x;
      for (int64_t k = 2; k <= n; ++k) {
        const double next =
            ((2 * k - 1) * x * value - (k - 1) * previous) / k;
        previous = value;
        value = next;
      }
      derivative = n * (x * value - previous) / (x * x - 1);
      const double step = value / derivative;
      x -= step;
      if (std::abs(step) < 1e-15) break;
    }
    out.nodes[n - 1 - i] = 0.5 * (1 + x);
    out.weights[n - 1 - i] = 1 / ((1 - x * x) * derivative * derivative);
  }
  return out;
}

}  // namespace

Quadrature MakeQuadrature(IntegrationRule rule, int64_t steps) {
  if (rule == IntegrationRule::kGaussLegendre) return GaussLegendre(steps);
  Quadrature out;
  for (int64_t step = 0; step < steps; ++step) {
    const double u = (step + 0.5) / steps;
    const bool cubic = rule == IntegrationRule::kCubic;
    out.nodes.push_back(cubic ? u * u * u : u);
    out.weights.push_back((cubic ? 3 * u * u : 1) / steps);
  }
  return out;
}

}  // namespace limpid
