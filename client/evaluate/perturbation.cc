// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/perturbation.h"

#include <numeric>

#include "client/evaluate/metrics.h"

namespace limpid::evaluate {
namespace {

constexpr int kFirst = 1, kLast = 9;
constexpr size_t kPoints = kLast - kFirst + 1;
constexpr size_t kCurves = 4;  // scores before the curves

}  // namespace

std::vector<double> Tenths(int first, int last) {
  std::vector<double> x;
  for (int tenths = first; tenths <= last; ++tenths) x.push_back(tenths / 10.0);
  return x;
}

absl::StatusOr<std::vector<double>> JudgePerturbation(
    const std::vector<size_t>& order, const StaysSame& stays_same) {
  const std::vector<size_t> reversed(order.rbegin(), order.rend());
  const std::vector<double> x = Tenths(kFirst, kLast);
  std::vector<double> areas, means, curves;
  for (const std::vector<size_t>* from : {&order, &reversed}) {
    std::vector<double> curve;
    for (int tenths = kFirst; tenths <= kLast; ++tenths) {
      const absl::StatusOr<bool> same =
          stays_same(*from, CountOfTenths(tenths, from->size()));
      if (!same.ok()) return same.status();
      curve.push_back(*same ? 1 : 0);
    }
    areas.push_back(TrapezoidArea(x, curve) / (x.back() - x.front()));
    means.push_back(std::accumulate(curve.begin(), curve.end(), 0.0) / kPoints);
    curves.insert(curves.end(), curve.begin(), curve.end());
  }
  std::vector<double> scores = areas;
  scores.insert(scores.end(), means.begin(), means.end());
  scores.insert(scores.end(), curves.begin(), curves.end());
  return scores;
}

std::vector<Figure> PerturbationFigures() {
  return {
      MeanFigure("positive_auc", "positive AUC %", false, 0, 100, 1),
      MeanFigure("negative_auc", "negative AUC %", true, 1, 100, 1),
      MeanFigure("positive_mean", "positive mean %", false, 2, 100, 1),
      MeanFigure("negative_mean", "negative mean %", true, 3, 100, 1),
  };
}

std::vector<Curve> PerturbationCurves() {
  const std::vector<double> x = Tenths(kFirst, kLast);
  return {{"accuracy %, most relevant removed first", "share removed", kCurves,
           x, 100},
          {"accuracy %, least relevant removed first", "share removed",
           kCurves + kPoints, x, 100}};
}

}  // namespace limpid::evaluate
