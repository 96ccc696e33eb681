// SPDX-License-Identifier: Apache-2.0
//
// Why integrated gradients do not add up on some paths, however many steps they
// take: what the score does along the line from the baseline to the input.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "server/attribution/gradient.h"
#include "server/checkpoint/checkpoint.h"
#include "server/models/loader.h"
#include "server/reduce/sinks.h"
#include "tests/support/random_network.h"
#include "tests/support/run_method.h"

namespace limpid {
namespace {

using testing::MethodCall;
using testing::TinyCase;

// The score and its derivative along a line of embeddings [L, E].
class Path {
 public:
  Path(const Network& network, ExplainedPoint point, at::Tensor start,
       at::Tensor end)
      : network_(network),
        point_(std::move(point)),
        start_(std::move(start)),
        direction_(end - start_) {}

  at::Tensor At(double place) const { return start_ + place * direction_; }
  double Score(double place) const { return Run(place).first; }
  // By the midpoint rule.
  double Integral(double from, double to, int steps) const {
    double sum = 0;
    for (int i = 0; i < steps; ++i) {
      sum += Run(from + (to - from) * (i + 0.5) / steps).second;
    }
    return sum * (to - from) / steps;
  }

 private:
  std::pair<double, double> Run(double place) const {
    const auto result = GradientsOfTargets(
        network_, At(place).unsqueeze(0), {point_}, Differentiation::kFull,
        /*by_block_outputs=*/false, CancelToken());
    EXPECT_TRUE(result.ok()) << result.status();
    const TargetGradient& there = result->front();
    return {there.score.item().toDouble(),
            (there.gradient[0] * direction_).sum().item().toDouble()};
  }

  const Network& network_;
  const ExplainedPoint point_;
  const at::Tensor start_, direction_;
};

TinyCase CaseOf(const std::string& name) {
  const auto cases = testing::TinyCases();
  return *std::find_if(cases.begin(), cases.end(),
                       [&](const TinyCase& one) { return one.name == name; });
}

// An entry of the first layer's matrix before the norm of the heads: channel 4,
// which is the first of the second head, first row and column.
double FirstEntry(const Network& network, const at::Tensor& embeddings) {
  const c10::NoGradGuard no_grad;
  double entry = 0;
  const auto look = [&](int64_t layer, int64_t,
                        const BlockAttention& attention) -> absl::Status {
    if (layer > 0) return absl::OkStatus();
    MatrixForm form;
    form.form = AttentionForm::kNoNorm;
    ChannelCollector collector({}, attention, {0, 1});
    LIMPID_RETURN_IF_ERROR(
        attention.Visit(form, {0, 1}, collector, CancelToken()));
    entry = collector.Finish()[4][0][0].item().toDouble();
    return absl::OkStatus();
  };
  EXPECT_TRUE(
      network.Forward(embeddings.unsqueeze(0), {0}, look, CancelToken()).ok());
  return entry;
}

// At the first position a head's memory holds one token: its output is that
// token's value times key by query, and a norm leaves the sign of the product.
// Where the product passes through zero on the way, the score makes a step,
// here of a quarter within a ten-thousandth of the path.
TEST(IntegrationPathTest, NormsOfHeadsMakeAStepAtTheFirstPosition) {
  const auto network =
      testing::MakeRandomNetwork(CaseOf("mlstm_0"), at::kDouble, 17);
  NetworkInput input = testing::RandomInput(*network, 1, 9, 21);
  const at::Tensor end = network->Embed(input)[0];
  const int64_t first = input.token_ids[0][0].item().toLong();
  input.token_ids = input.token_ids.clone();
  input.token_ids[0][0] = (first + 1) % 3;
  MethodCall call;
  call.position = end.size(0) - 3;
  call.target = {1, 2};
  const Path path(*network, testing::PointOf(*network, call),
                  network->Embed(input)[0], end);

  double below = 0.7, above = 0.9;
  ASSERT_LT(FirstEntry(*network, path.At(below)), 0);
  ASSERT_GT(FirstEntry(*network, path.At(above)), 0);
  for (int i = 0; i < 30; ++i) {
    const double middle = (below + above) / 2;
    (FirstEntry(*network, path.At(middle)) < 0 ? below : above) = middle;
  }
  const double width = 2e-3;
  const double before = below - width / 2, after = above + width / 2;
  const double step = path.Score(after) - path.Score(before);
  const double left = path.Score(before) - path.Score(0);
  const double right = path.Score(1) - path.Score(after);
  std::printf("figure: step of %.3f at %.5f of the path\n", step, below);
  EXPECT_GT(std::abs(step), 0.2);
  // Without the step the integral adds up, and the whole lacks just the step.
  EXPECT_NEAR(path.Integral(0, before, 64), left, 0.01);
  EXPECT_NEAR(path.Integral(after, 1, 64), right, 0.01);
  EXPECT_NEAR(path.Integral(0, 1, 64), left + right, 0.1 * std::abs(step));
}

// Near zero embeddings every block's norm amplifies what is left of the input.
TEST(IntegrationPathTest, ScoresOfShapesSwingAtEveryScaleNearZero) {
  auto checkpoint =
      Checkpoint::Open(std::string(LIMPID_SOURCE_DIR) + "/models/shapes-vim");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  auto network = LoadNetwork(*checkpoint, {at::kCPU, at::kDouble});
  ASSERT_TRUE(network.ok()) << network.status();
  const NetworkInput input = testing::RandomInput(**network, 1, 65, 3);
  const at::Tensor end = (*network)->Embed(input)[0];
  MethodCall call;
  call.position = (*network)->info().class_token;
  call.target = {1};
  const Path path(**network, testing::PointOf(**network, call),
                  at::zeros_like(end), end);
  // How far the score travels within each factor of a hundred.
  for (double from = 1e-8; from < 1e-2; from *= 100) {
    double travelled = 0, last = path.Score(from);
    for (int i = 1; i <= 24; ++i) {
      const double score = path.Score(from * std::pow(100, i / 24.0));
      travelled += std::abs(score - last);
      last = score;
    }
    std::printf("figure: %.0e to %.0e of the path: travels %.2f\n", from,
                100 * from, travelled);
    EXPECT_GT(travelled, 0.3) << from;
  }
}

}  // namespace
}  // namespace limpid
