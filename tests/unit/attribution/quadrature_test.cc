// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/quadrature.h"

#include <gtest/gtest.h>

#include <cmath>

namespace limpid {
namespace {

double Integral(const Quadrature& rule, double power) {
  double sum = 0;
  for (size_t i = 0; i < rule.nodes.size(); ++i) {
    sum += rule.weights[i] * std::pow(rule.nodes[i], power);
  }
  return sum;
}

TEST(QuadratureTest, GaussLegendreIsExactForPolynomials) {
  for (const int64_t steps : {1, 2, 3, 8, 64, 1024}) {
    const Quadrature rule =
        MakeQuadrature(IntegrationRule::kGaussLegendre, steps);
    for (int64_t power = 0; power < 2 * std::min<int64_t>(steps, 20); ++power) {
      EXPECT_NEAR(Integral(rule, power), 1.0 / (power + 1), 1e-13)
          << steps << " steps, power " << power;
    }
  }
}

TEST(QuadratureTest, MidpointAndCubicConvergeQuadratically) {
  for (const IntegrationRule name :
       {IntegrationRule::kMidpoint, IntegrationRule::kCubic}) {
    const double coarse = std::abs(Integral(MakeQuadrature(name, 16), 2) -
                                   1.0 / 3);
    const double fine = std::abs(Integral(MakeQuadrature(name, 32), 2) -
                                 1.0 / 3);
    EXPECT_NEAR(coarse / fine, 4, 0.05);
  }
}

TEST(QuadratureTest, NodesAscendInsideTheInterval) {
  for (const IntegrationRule name :
       {IntegrationRule::kMidpoint, IntegrationRule::kCubic,
        IntegrationRule::kGaussLegendre}) {
    const Quadrature rule = MakeQuadrature(name, 33);
    double previous = 0;
    for (const double node : rule.nodes) {
      EXPECT_GT(node, previous);
      previous = node;
    }
    EXPECT_LT(previous, 1);
  }
}

TEST(QuadratureTest, CubicNodesCrowdTheBaseline) {
  const Quadrature rule = MakeQuadrature(IntegrationRule::kCubic, 64);
  EXPECT_LT(rule.nodes[0], 1e-6);
  EXPECT_NEAR(rule.nodes[0], std::pow(0.5 / 64, 3), 1e-18);
  EXPECT_NEAR(rule.weights[0], 3 * std::pow(0.5 / 64, 2) / 64, 1e-18);
}

}  // namespace
}  // namespace limpid
