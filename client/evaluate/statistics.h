// SPDX-License-Identifier: Apache-2.0
//
// Figures of many items and how sure they are.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace limpid::evaluate {

// A column of a table, made from the sums of what each item scored.
struct Figure {
  std::string key;    // for programs, for example "precision_at_1"
  std::string title;  // for people, for example "precision@1"
  bool higher_is_better = true;
  int decimals = 3;
  // Whether it depends on the order of the values alone: then attributions in
  // random order must score like random ones.
  bool order_only = true;
  // `sums` are the items' scores added up.
  std::function<double(std::span<const double> sums, double items)> value;
};

// A figure that is the mean over items of score `index`, times `factor`.
Figure MeanFigure(std::string key, std::string title, bool higher_is_better,
                  size_t index, double factor = 1, int decimals = 3);

struct Interval {
  double value = 0, low = 0, high = 0;
  // Whether the two have no number in common.
  bool Apart(const Interval& other) const {
    return low > other.high || other.low > high;
  }
};

// Every figure with its 95 % percentile bootstrap interval: items are drawn
// with replacement, the same draws for all figures. `scores` holds one list per
// item, all equally long; zeros without items.
std::vector<Interval> Bootstrap(const std::vector<std::vector<double>>& scores,
                                std::span<const Figure> figures, int resamples,
                                uint64_t seed);

// Figures of `a` minus those of `b` on the same items, each item drawn for both
// at once: what is common to the items cancels out. Both hold one list per
// item.
std::vector<Interval> BootstrapDifference(
    const std::vector<std::vector<double>>& a,
    const std::vector<std::vector<double>>& b, std::span<const Figure> figures,
    int resamples, uint64_t seed);

// Scores added up over items.
std::vector<double> SumScores(const std::vector<std::vector<double>>& scores);

}  // namespace limpid::evaluate
