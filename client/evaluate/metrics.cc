// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "client/evaluate/seeded_random.h"

namespace limpid::evaluate {
namespace {

std::vector<size_t> Indices(size_t count) {
  std::vector<size_t> indices(count);
  std::iota(indices.begin(), indices.end(), size_t{0});
  return indices;
}

}  // namespace

double TrapezoidArea(std::span<const double> x, std::span<const double> y) {
  double area = 0;
  for (size_t i = 1; i < x.size(); ++i) {
    area += (x[i] - x[i - 1]) * (y[i] + y[i - 1]) / 2;
  }
  return area;
}

std::vector<size_t> DescendingOrder(std::span<const float> values,
                                    uint64_t seed) {
  std::vector<size_t> order = Indices(values.size());
  SeededRandom(seed).Shuffle(order);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] > values[b]; });
  return order;
}

size_t CountOfTenths(int tenths, size_t total) {
  return (static_cast<size_t>(tenths) * total + 9) / 10;
}

std::vector<double> AverageRanks(std::span<const double> values) {
  std::vector<size_t> order = Indices(values.size());
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) {
      ++end;
    }
    const double rank = static_cast<double>(begin + 1 + end) / 2;
    for (size_t i = begin; i < end; ++i) ranks[order[i]] = rank;
  }
  return ranks;
}

double Spearman(std::span<const double> a, std::span<const double> b) {
  if (a.size() < 2) return 0;
  const std::vector<double> rank_a = AverageRanks(a), rank_b = AverageRanks(b);
  const double mean = static_cast<double>(a.size() + 1) / 2;
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < rank_a.size(); ++i) {
    ab += (rank_a[i] - mean) * (rank_b[i] - mean);
    aa += (rank_a[i] - mean) * (rank_a[i] - mean);
    bb += (rank_b[i] - mean) * (rank_b[i] - mean);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

double AveragePrecision(std::span<const float> scores,
                        std::span<const uint8_t> positive) {
  std::vector<size_t> order = Indices(scores.size());
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  double hits = 0, sum = 0;
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    double more = 0;
    while (end < order.size() && scores[order[end]] == scores[order[begin]]) {
      more += positive[order[end++]] ? 1 : 0;
    }
    hits += more;
    sum += more * hits / static_cast<double>(end);
  }
  return hits > 0 ? sum / hits : 0;
}

double RocArea(std::span<const float> scores,
               std::span<const uint8_t> positive) {
  const std::vector<double> values(scores.begin(), scores.end());
  const std::vector<double> ranks = AverageRanks(values);
  double sum = 0, count = 0;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (!positive[i]) continue;
    sum += ranks[i];
    ++count;
  }
  const double pairs = count * (static_cast<double>(ranks.size()) - count);
  return pairs > 0 ? (sum - count * (count + 1) / 2) / pairs : 0.5;
}

double PrecisionAtK(std::span<const double> scores,
                    std::span<const uint8_t> positive, size_t k) {
  k = std::min(k, scores.size());
  if (k == 0) return 0;
  std::vector<double> sorted(scores.begin(), scores.end());
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const double limit = sorted[k - 1];
  double above = 0, hits_above = 0, tied = 0, hits_tied = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] > limit) {
      ++above;
      hits_above += positive[i] ? 1 : 0;
    } else if (scores[i] == limit) {
      ++tied;
      hits_tied += positive[i] ? 1 : 0;
    }
  }
  const double places = static_cast<double>(k);
  return (hits_above + hits_tied * (places - above) / tied) / places;
}

double BestRank(std::span<const double> values,
                std::span<const size_t> wanted) {
  double best = values[wanted[0]];
  for (const size_t index : wanted) best = std::max(best, values[index]);
  const double above = static_cast<double>(std::count_if(
      values.begin(), values.end(), [&](double x) { return x > best; }));
  double rivals = 0, equal = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] != best) continue;
    const bool ours =
        std::find(wanted.begin(), wanted.end(), i) != wanted.end();
    (ours ? equal : rivals) += 1;
  }
  // The first of `equal` among equal + rivals in random order has on average
  // rivals / (equal + 1) of them before it.
  return above + 1 + rivals / (equal + 1);
}

std::vector<float> ResizeBilinear(std::span<const float> grid, int64_t rows,
                                  int64_t columns, int64_t height,
                                  int64_t width) {
  struct Tap {
    int64_t low, high;
    float share;  // of `high`
  };
  const auto taps = [](int64_t from, int64_t to) {
    std::vector<Tap> result;
    for (int64_t i = 0; i < to; ++i) {
      const double at = std::max(0.0, (static_cast<double>(i) + 0.5) *
                                              static_cast<double>(from) /
                                              static_cast<double>(to) -
                                          0.5);
      const int64_t low = std::min(static_cast<int64_t>(at), from - 1);
      result.push_back({low, std::min(low + 1, from - 1),
                        static_cast<float>(at - static_cast<double>(low))});
    }
    return result;
  };
  const std::vector<Tap> down = taps(rows, height),
                         across = taps(columns, width);
  std::vector<float> result;
  result.reserve(static_cast<size_t>(height * width));
  for (const Tap& y : down) {
    for (const Tap& x : across) {
      const auto at = [&](int64_t row, int64_t column) {
        return grid[static_cast<size_t>(row * columns + column)];
      };
      const float top =
          at(y.low, x.low) * (1 - x.share) + at(y.low, x.high) * x.share;
      const float bottom =
          at(y.high, x.low) * (1 - x.share) + at(y.high, x.high) * x.share;
      result.push_back(top * (1 - y.share) + bottom * y.share);
    }
  }
  return result;
}

std::vector<float> MinMax(std::span<const float> values) {
  std::vector<float> result(values.size(), 0.0F);
  if (values.empty()) return result;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const float span = *high - *low;
  if (!(span > 0)) return result;
  for (size_t i = 0; i < values.size(); ++i) {
    result[i] = (values[i] - *low) / span;
  }
  return result;
}

std::vector<double> Softmax(std::span<const float> scores) {
  std::vector<double> result(scores.begin(), scores.end());
  if (result.empty()) return result;
  const double top = *std::max_element(result.begin(), result.end());
  double sum = 0;
  for (double& x : result) sum += x = std::exp(x - top);
  for (double& x : result) x /= sum;
  return result;
}

}  // namespace limpid::evaluate
