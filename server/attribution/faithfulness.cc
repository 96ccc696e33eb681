// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/faithfulness.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "server/attribution/baseline.h"
#include "server/attribution/gradient.h"
#include "server/attribution/masking.h"

namespace limpid {
namespace {

constexpr int64_t kMostSteps = 20;

using Order = std::vector<int64_t>;

Order ByAttribution(const at::Tensor& values, Order positions) {
  const at::Tensor exact = values.to(at::kDouble).contiguous();
  const double* const value = exact.const_data_ptr<double>();
  const auto rank = [value](int64_t position) {
    return std::isnan(value[position])
               ? -std::numeric_limits<double>::infinity()
               : value[position];
  };
  std::stable_sort(positions.begin(), positions.end(),
                   [&](int64_t a, int64_t b) { return rank(a) > rank(b); });
  return positions;
}

// The same everywhere for the same seed, unlike std::shuffle.
Order Shuffled(Order positions, std::mt19937_64& random) {
  for (size_t i = positions.size(); i > 1; --i) {
    std::swap(positions[i - 1], positions[random() % i]);
  }
  return positions;
}

// Variants of the input, collected row by row.
class Variants {
 public:
  explicit Variants(int64_t length) : length_(length) {}

  // Replaces the positions [begin, end) of an order; returns the variant's
  // number.
  int64_t Add(const Order& order, int64_t begin, int64_t end) {
    at::Tensor mask = at::zeros({length_}, at::kBool);
    bool* const values = mask.mutable_data_ptr<bool>();
    for (int64_t i = begin; i < end; ++i) values[order[i]] = true;
    masks_.push_back(mask);
    return static_cast<int64_t>(masks_.size()) - 1;
  }
  at::Tensor Masks() const { return at::stack(masks_); }

 private:
  const int64_t length_;
  std::vector<at::Tensor> masks_;
};

// Numbers of the variants that a curve goes through.
using Path = std::vector<int64_t>;

std::vector<float> ScoresOf(const Path& path, const at::Tensor& scores) {
  std::vector<float> out;
  for (const int64_t variant : path) {
    out.push_back(scores[variant][0].item().toFloat());
  }
  return out;
}

}  // namespace

absl::StatusOr<Faithfulness> MeasureFaithfulness(
    const AttributionContext& context, const ExplainedPoint& point,
    const at::Tensor& values, std::vector<int64_t> removable,
    const FaithfulnessRequest& request, const ProgressFunction& progress,
    const CancelToken& cancel) {
  const auto count = static_cast<int64_t>(removable.size());
  const int64_t steps = std::min(kMostSteps, count);
  std::vector<int64_t> counts;
  std::vector<float> fractions;
  for (int64_t step = 0; step <= steps; ++step) {
    counts.push_back(step * count / steps);
    fractions.push_back(static_cast<float>(counts.back()) /
                        static_cast<float>(count));
  }

  Variants variants(context.length());
  const int64_t whole = variants.Add(removable, 0, 0);
  const int64_t nothing = variants.Add(removable, 0, count);
  // Deletes the first ones of an order, or all but the first ones.
  const auto deletion = [&](const Order& order) {
    Path path = {whole};
    for (int64_t step = 1; step < steps; ++step) {
      path.push_back(variants.Add(order, 0, counts[step]));
    }
    path.push_back(nothing);
    return path;
  };
  const auto insertion = [&](const Order& order) {
    Path path = {nothing};
    for (int64_t step = 1; step < steps; ++step) {
      path.push_back(variants.Add(order, counts[step], count));
    }
    path.push_back(whole);
    return path;
  };
  const Order order = ByAttribution(values, removable);
  const Path deleted = deletion(order);
  const Path inserted = insertion(order);
  std::mt19937_64 random(static_cast<uint64_t>(request.seed));
  std::vector<Path> at_random;
  for (int64_t i = 0; i < request.random_orders; ++i) {
    at_random.push_back(deletion(Shuffled(removable, random)));
  }

  const ScoreFunction probability = [&](const at::Tensor& scores) {
    const at::Tensor logits = context.network.Logits(scores).to(at::kDouble);
    if (point.target.baseline_id) {
      return at::sigmoid(TargetScore(logits, point.target));
    }
    return at::softmax(logits, -1).select(-1, point.target.id);
  };
  LIMPID_ASSIGN_OR_RETURN(
      const at::Tensor scores,
      ScoreVariants(context, BaselineEmbeddings(context, request.replacement),
                    variants.Masks(), {{point.readout, probability}}, progress,
                    cancel));

  double random_area = 0;
  for (const Path& path : at_random) {
    random_area += AreaUnder(fractions, ScoresOf(path, scores)) /
                   static_cast<double>(request.random_orders);
  }
  const auto curve = [&](const Path& path) {
    FaithfulnessCurve out{fractions, ScoresOf(path, scores), 0, random_area};
    out.area = AreaUnder(out.fractions, out.scores);
    return out;
  };
  return Faithfulness{curve(deleted), curve(inserted), request.random_orders,
                      request.seed};
}

MethodCost CostOfFaithfulness(const CostQuery& query,
                              const FaithfulnessRequest& request) {
  const int64_t variants = 2 + (kMostSteps - 1) * (2 + request.random_orders);
  MethodCost cost = CostOfVariants(query, variants);
  cost.flops *= static_cast<double>(query.num_points());
  return cost;
}

}  // namespace limpid
