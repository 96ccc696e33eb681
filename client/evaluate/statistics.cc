// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/statistics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "client/evaluate/seeded_random.h"

namespace limpid::evaluate {
namespace {

// Linear between the two nearest order statistics.
double Percentile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] +
         (sorted[high] - sorted[low]) * (at - static_cast<double>(low));
}

}  // namespace

Figure MeanFigure(std::string key, std::string title, bool higher_is_better,
                  size_t index, double factor, int decimals) {
  return {std::move(key),
          std::move(title),
          higher_is_better,
          decimals,
          true,
          [index, factor](std::span<const double> sums, double items) {
            return factor * sums[index] / items;
          }};
}

std::vector<double> SumScores(const std::vector<std::vector<double>>& scores) {
  std::vector<double> sums;
  for (const std::vector<double>& item : scores) {
    sums.resize(item.size());
    for (size_t i = 0; i < item.size(); ++i) sums[i] += item[i];
  }
  return sums;
}

std::vector<Interval> Bootstrap(const std::vector<std::vector<double>>& scores,
                                std::span<const Figure> figures, int resamples,
                                uint64_t seed) {
  std::vector<Interval> intervals(figures.size());
  if (scores.empty()) return intervals;
  const double items = static_cast<double>(scores.size());
  const std::vector<double> whole = SumScores(scores);
  std::vector<std::vector<double>> drawn(figures.size());
  SeededRandom random(seed);
  std::vector<double> sums(whole.size());
  for (int sample = 0; sample < resamples; ++sample) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (size_t n = 0; n < scores.size(); ++n) {
      const std::vector<double>& item = scores[random.Below(scores.size())];
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += item[i];
    }
    for (size_t f = 0; f < figures.size(); ++f) {
      drawn[f].push_back(figures[f].value(sums, items));
    }
  }
  for (size_t f = 0; f < figures.size(); ++f) {
    const double value = figures[f].value(whole, items);
    intervals[f] = {value, value, value};
    if (drawn[f].empty()) continue;
    std::sort(drawn[f].begin(), drawn[f].end());
    intervals[f].low = Percentile(drawn[f], 0.025);
    intervals[f].high = Percentile(drawn[f], 0.975);
  }
  return intervals;
}

std::vector<Interval> BootstrapDifference(
    const std::vector<std::vector<double>>& a,
    const std::vector<std::vector<double>>& b, std::span<const Figure> figures,
    int resamples, uint64_t seed) {
  std::vector<std::vector<double>> both = a;
  for (size_t i = 0; i < both.size(); ++i) {
    both[i].insert(both[i].end(), b[i].begin(), b[i].end());
  }
  std::vector<Figure> differences(figures.begin(), figures.end());
  for (Figure& figure : differences) {
    figure.value = [value = figure.value](std::span<const double> sums,
                                          double items) {
      const size_t half = sums.size() / 2;
      return value(sums.first(half), items) - value(sums.last(half), items);
    };
  }
  return Bootstrap(both, differences, resamples, seed);
}

}  // namespace limpid::evaluate
