// SPDX-License-Identifier: Apache-2.0
#include "client/cli/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include "client/cli/pictures.h"

namespace limpid::cli {
namespace {

// Ranks from 0 on.
std::vector<double> Ranks(std::span<const float> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    while (end < order.size() && values[order[end]] == values[order[begin]]) {
      ++end;
    }
    for (size_t i = begin; i < end; ++i) {
      ranks[order[i]] = 0.5 * static_cast<double>(begin + end - 1);
    }
    begin = end;
  }
  return ranks;
}

std::set<size_t> Top(std::span<const float> values, size_t k) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::abs(values[a]) > std::abs(values[b]);
  });
  order.resize(std::min(k, order.size()));
  return {order.begin(), order.end()};
}

// Words with their sums.
AttributionView ViewWords(const Explanation& explanation) {
  AttributionView view;
  for (const v1::UnitAttribution& unit : explanation.summary.units()) {
    view.labels.push_back(unit.text());
    view.values.push_back(unit.value());
  }
  return view;
}

bool SameUnits(const std::vector<AttributionView>& views) {
  return std::all_of(views.begin(), views.end(), [&](const auto& view) {
    return view.labels == views.front().labels &&
           view.grid_rows == views.front().grid_rows &&
           view.grid_columns == views.front().grid_columns &&
           !view.values.empty() &&
           view.values.size() == views.front().values.size();
  });
}

Comparison Collect(std::string unit, std::vector<AttributionView> views) {
  Comparison out{std::move(unit), views.front().labels, {}};
  for (AttributionView& view : views) {
    out.values.push_back(std::move(view.values));
  }
  return out;
}

}  // namespace

absl::StatusOr<Comparison> Compare(std::span<const Explanation> explanations) {
  std::vector<AttributionView> views, words;
  for (const Explanation& explanation : explanations) {
    absl::StatusOr<AttributionView> view = ViewAttribution(explanation);
    if (!view.ok()) return view.status();
    views.push_back(*std::move(view));
    words.push_back(ViewWords(explanation));
  }
  if (!views.empty() && SameUnits(views)) {
    const bool patches = views.front().grid_rows > 0;
    return Collect(patches ? "patch" : "token", std::move(views));
  }
  if (!words.empty() && SameUnits(words)) {
    return Collect("word", std::move(words));
  }
  return absl::InvalidArgumentError(
      "the explanations have neither tokens nor words in common");
}

double RankCorrelation(std::span<const float> a, std::span<const float> b) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  if (a.size() != b.size() || a.empty()) return kNone;
  const std::vector<double> x = Ranks(a), y = Ranks(b);
  const double mean = 0.5 * static_cast<double>(a.size() - 1);
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : kNone;
}

size_t TopOverlap(std::span<const float> a, std::span<const float> b,
                  size_t k) {
  const std::set<size_t> x = Top(a, k), y = Top(b, k);
  return static_cast<size_t>(std::count_if(
      x.begin(), x.end(), [&](size_t i) { return y.count(i) > 0; }));
}

}  // namespace limpid::cli
