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

struct Case {
  const ArchitectureSpec* spec;
  std::string config;
  std::string name;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const ArchitectureSpec& spec : ListedArchitectures()) {
    for (size_t i = 0; i < spec.tiny_configs.size(); ++i) {
      cases.push_back(
          {&spec, spec.tiny_configs[i], spec.id + std::to_string(i)});
    }
  }
  return cases;
}

class PathsTest : public ::testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<const Network> Make(at::ScalarType dtype) {
    return testing::MakeRandomNetwork(*GetParam().spec, GetParam().config,
                                      dtype, 11);
  }
  static at::Tensor Fast(const Network& network, const at::Tensor& tokens,
                         const std::vector<int64_t>& positions) {
    const c10::NoGradGuard no_gradients;
    auto logits = network.Forward(network.Embed({tokens, at::Tensor()}),
                                  positions, nullptr, CancelToken());
    EXPECT_TRUE(logits.ok()) << logits.status();
    return logits->clone();
  }
};

TEST_P(PathsTest, FastAndDifferentiablePathsAgree) {
  for (const int64_t length : {1, 2, 65}) {
    const auto network = Make(at::kDouble);
    const at::Tensor tokens = testing::RandomTokens(*network, 2, length, 3);
    const auto slow = network->ForwardDifferentiable(
        network->Embed({tokens, at::Tensor()}), {}, CancelToken());
    ASSERT_TRUE(slow.ok()) << slow.status();
    EXPECT_TRUE(at::allclose(Fast(*network, tokens, {}), slow->detach(), 1e-10,
                             1e-12));
  }
}

TEST_P(PathsTest, FloatAgreesWithDouble) {
  const auto exact = Make(at::kDouble);
  const auto single = Make(at::kFloat);
  const at::Tensor tokens = testing::RandomTokens(*exact, 1, 257, 4);
  const at::Tensor a = Fast(*exact, tokens, {});
  const at::Tensor b = Fast(*single, tokens, {}).to(at::kDouble);
  EXPECT_LE(((a - b).abs().max() / a.abs().max()).item().toDouble(), 1e-5);
}

TEST_P(PathsTest, SequencesOfABatchDoNotMix) {
  const auto network = Make(at::kDouble);
  const at::Tensor tokens = testing::RandomTokens(*network, 3, 19, 5);
  const at::Tensor together = Fast(*network, tokens, {});
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(at::allclose(together.narrow(0, i, 1),
                             Fast(*network, tokens.narrow(0, i, 1), {}), 1e-10,
                             1e-12));
  }
}

TEST_P(PathsTest, PaddingOnTheRightChangesNothing) {
  const auto network = Make(at::kDouble);
  if (!network->info().causal) GTEST_SKIP() << "not causal: never padded";
  const at::Tensor tokens = testing::RandomTokens(*network, 1, 30, 6);
  EXPECT_TRUE(at::allclose(Fast(*network, tokens, {16}),
                           Fast(*network, tokens.narrow(1, 0, 17), {16}), 1e-10,
                           1e-12));
}

TEST_P(PathsTest, GradientsAgreeWithFiniteDifferences) {
  const auto network = Make(at::kDouble);
  const at::Tensor tokens = testing::RandomTokens(*network, 1, 7, 8);
  const at::Tensor embeddings = network->Embed({tokens, at::Tensor()});
  ResolvedTarget target;
  target.id = 1;
  target.baseline_id = 2;
  const auto at_input =
      GradientOfTarget(*network, embeddings, 5, target, CancelToken());
  ASSERT_TRUE(at_input.ok()) << at_input.status();
  const auto score = [&](const at::Tensor& point) {
    const c10::NoGradGuard no_gradients;
    return TargetScore(
               (*network->Forward(point, {5}, nullptr, CancelToken()))[0][0],
               target)
        .item()
        .toDouble();
  };
  const double step = 1e-5;
  double largest = 0;
  for (int64_t t = 0; t < 7; ++t) {
    for (int64_t e = 0; e < embeddings.size(2); ++e) {
      at::Tensor up = embeddings.clone(), down = embeddings.clone();
      up[0][t][e] += step;
      down[0][t][e] -= step;
      const double expected = (score(up) - score(down)) / (2 * step);
      largest = std::max(
          largest,
          std::abs(expected - at_input->gradient[0][t][e].item().toDouble()));
    }
  }
  EXPECT_LE(largest / at_input->gradient.abs().max().item().toDouble(), 1e-6);
  // Positions behind the explained one have no influence.
  if (network->info().causal) {
    EXPECT_EQ(at_input->gradient[0][6].abs().max().item().toDouble(), 0);
  }
}

TEST_P(PathsTest, ForwardStopsWhenCancelled) {
  const auto network = Make(at::kFloat);
  CancelToken cancel;
  cancel.Cancel();
  const at::Tensor tokens = testing::RandomTokens(*network, 1, 4, 9);
  EXPECT_EQ(network
                ->Forward(network->Embed({tokens, at::Tensor()}), {3}, nullptr,
                          cancel)
                .status()
                .code(),
            absl::StatusCode::kCancelled);
}

INSTANTIATE_TEST_SUITE_P(Architectures, PathsTest,
                         ::testing::ValuesIn(Cases()),
                         [](const ::testing::TestParamInfo<Case>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace limpid
