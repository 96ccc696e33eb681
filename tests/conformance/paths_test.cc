// SPDX-License-Identifier: Apache-2.0
//
// For every listed architecture: the fast and the differentiable path are one
// function, batches do not mix, padding changes nothing, and gradients are
// right.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "server/attribution/gradient.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

using testing::TinyCase;

class PathsTest : public ::testing::TestWithParam<TinyCase> {
 protected:
  std::unique_ptr<const Network> Make(at::ScalarType dtype) {
    return testing::MakeRandomNetwork(GetParam(), dtype, 11);
  }
  // e of seeded random input, [batch, length, E].
  static at::Tensor Embedded(const Network& network, int64_t batch,
                             int64_t length, uint64_t seed) {
    return network.Embed(testing::RandomInput(network, batch, length, seed));
  }
  static at::Tensor Fast(const Network& network, const at::Tensor& embeddings,
                         const std::vector<int64_t>& positions) {
    const c10::NoGradGuard no_gradients;
    auto scores = network.Forward(embeddings, positions, nullptr,
                                  CancelToken());
    EXPECT_TRUE(scores.ok()) << scores.status();
    return scores->clone();
  }
};

TEST_P(PathsTest, FastAndDifferentiablePathsAgree) {
  const auto network = Make(at::kDouble);
  for (const int64_t length : testing::LengthsOf(*network, {1, 2, 65})) {
    const at::Tensor e = Embedded(*network, 2, length, 3);
    for (const Differentiation differentiation :
         {Differentiation::kFull, Differentiation::kFrozen}) {
      const auto slow = network->ForwardDifferentiable(
          e, {}, differentiation, CancelToken());
      ASSERT_TRUE(slow.ok()) << slow.status();
      EXPECT_TRUE(at::allclose(Fast(*network, e, {}), slow->detach(), 1e-10,
                               1e-12));
    }
  }
}

TEST_P(PathsTest, FloatAgreesWithDouble) {
  const auto exact = Make(at::kDouble);
  const auto single = Make(at::kFloat);
  const at::Tensor e = Embedded(*exact, 1, 257, 4);
  const at::Tensor a = Fast(*exact, e, {});
  const at::Tensor b = Fast(*single, e.to(at::kFloat), {}).to(at::kDouble);
  EXPECT_LE(((a - b).abs().max() / a.abs().max()).item().toDouble(), 2e-5);
}

TEST_P(PathsTest, SequencesOfABatchDoNotMix) {
  const auto network = Make(at::kDouble);
  const at::Tensor e = Embedded(*network, 3, 19, 5);
  const at::Tensor together = Fast(*network, e, {});
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(at::allclose(together.narrow(0, i, 1),
                             Fast(*network, e.narrow(0, i, 1), {}), 1e-10,
                             1e-12));
  }
}

TEST_P(PathsTest, PaddingOnTheRightChangesNothing) {
  const auto network = Make(at::kDouble);
  if (!network->info().causal) GTEST_SKIP() << "not causal: never padded";
  const at::Tensor e = Embedded(*network, 1, 30, 6);
  EXPECT_TRUE(at::allclose(Fast(*network, e, {16}),
                           Fast(*network, e.narrow(1, 0, 17), {16}), 1e-10,
                           1e-12));
}

TEST_P(PathsTest, GradientsAgreeWithFiniteDifferences) {
  const auto network = Make(at::kDouble);
  const at::Tensor e = Embedded(*network, 1, 7, 8);
  ResolvedTarget target;
  target.id = 1;
  target.baseline_id = 2;
  const int64_t position = e.size(1) - 2;
  const auto at_input =
      GradientOfTarget(*network, e, position, target, Differentiation::kFull,
                       CancelToken());
  ASSERT_TRUE(at_input.ok()) << at_input.status();
  const auto score = [&](const at::Tensor& point) {
    return TargetScore(Fast(*network, point, {position})[0][0], target)
        .item()
        .toDouble();
  };
  // Five points: norms of small heads bend within the step of a simpler rule.
  const double step = 1e-5;
  double largest = 0;
  for (int64_t t = 0; t < e.size(1); ++t) {
    for (int64_t i = 0; i < e.size(2); ++i) {
      const auto at_distance = [&](double distance) {
        at::Tensor point = e.clone();
        point[0][t][i] += distance;
        return score(point);
      };
      const double expected =
          (8 * (at_distance(step) - at_distance(-step)) -
           (at_distance(2 * step) - at_distance(-2 * step))) /
          (12 * step);
      largest = std::max(
          largest,
          std::abs(expected - at_input->gradient[0][t][i].item().toDouble()));
    }
  }
  EXPECT_LE(largest / at_input->gradient.abs().max().item().toDouble(), 1e-6);
  // Positions behind the explained one have no influence.
  if (network->info().causal) {
    EXPECT_EQ(at_input->gradient[0][position + 1].abs().max().item()
                  .toDouble(),
              0);
  }
}

// With all factors frozen the scores are affine in e, so its gradient and the
// scores at zero say all: the second master test of the implicit attention.
TEST_P(PathsTest, TheFrozenNetworkIsCompletelyLinear) {
  const auto network = Make(at::kDouble);
  for (const int64_t length : testing::LengthsOf(*network, {1, 17})) {
    const at::Tensor e = Embedded(*network, 1, length, 9);
    const at::Tensor other = at::flip(e, {2}) * 3 + 0.25;
    ResolvedTarget target;
    target.id = 2;
    const int64_t position = length - 1;
    const auto gradient =
        GradientOfTarget(*network, e, position, target,
                         Differentiation::kFrozen, CancelToken());
    ASSERT_TRUE(gradient.ok()) << gradient.status();
    const auto frozen = [&](const at::Tensor& point) {
      const auto scores =
          network->ForwardFrozen(e, point, {position}, CancelToken());
      EXPECT_TRUE(scores.ok()) << scores.status();
      return TargetScore((*scores)[0][0], target).item().toDouble();
    };
    const double at_zero = frozen(at::zeros_like(e));
    const auto linear = [&](const at::Tensor& point) {
      return at_zero + (gradient->gradient * point).sum().item().toDouble();
    };
    const double score = gradient->score.item().toDouble();
    const double scale = (gradient->gradient * e).abs().sum().item()
                             .toDouble() + std::abs(at_zero);
    EXPECT_NEAR(linear(e), score, 1e-10 * scale);
    EXPECT_NEAR(frozen(e), score, 1e-10 * scale);
    EXPECT_NEAR(linear(other), frozen(other), 1e-9 * scale);
  }
}

TEST_P(PathsTest, ForwardStopsWhenCancelled) {
  const auto network = Make(at::kFloat);
  CancelToken cancel;
  cancel.Cancel();
  EXPECT_EQ(network->Forward(Embedded(*network, 1, 4, 9), {3}, nullptr, cancel)
                .status()
                .code(),
            absl::StatusCode::kCancelled);
}

INSTANTIATE_TEST_SUITE_P(
    Architectures, PathsTest, ::testing::ValuesIn(testing::TinyCases()),
    [](const ::testing::TestParamInfo<TinyCase>& info) {
      return info.param.name;
    });

}  // namespace
}  // namespace limpid
