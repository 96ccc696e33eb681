// SPDX-License-Identifier: Apache-2.0
//
// What integrated gradients cost: passes through the network, and how long they
// take beside as many passes one by one.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

#include "server/attribution/gradient.h"
#include "server/attribution/quadrature.h"
#include "server/models/loader.h"
#include "server/models/residual_network.h"
#include "tests/support/golden.h"
#include "tests/support/run_method.h"

namespace limpid {
namespace {

using testing::MethodCall;

// Sequences that went through a network.
struct Passes {
  int64_t with_gradients = 0;
  int64_t without = 0;
};

// A network without layers whose head counts; `passes` must outlive it.
std::unique_ptr<const Network> MakeCountedNetwork(Passes& passes) {
  ResidualParts parts;
  parts.options.dtype = at::kDouble;
  parts.info.hidden_size = 2;
  parts.info.vocabulary_size = 3;
  parts.embed = TokenEmbedding(at::rand({3, 2}, at::kDouble));
  parts.head = [&passes](const at::Tensor& stream, const Pass&) {
    (at::GradMode::is_enabled() ? passes.with_gradients : passes.without) +=
        stream.size(0);
    return at::matmul(stream, at::ones({2, 3}, at::kDouble)).square();
  };
  return MakeResidualNetwork(std::move(parts));
}

TEST(IntegratedGradientsCostTest, OnePassPerStepAndTwoForTheEnds) {
  Passes passes;
  const auto network = MakeCountedNetwork(passes);
  MethodCall call;
  call.method = "integrated-gradients";
  call.position = 4;
  call.options.steps = 64;
  const NetworkInput input = testing::GoldenCase::Tokens({0, 1, 2, 1, 0});
  // In batches of any size.
  for (const int64_t memory : {int64_t{1}, int64_t{3000}, int64_t{1} << 30}) {
    passes = {};
    call.memory_bytes = memory;
    RunMethod(*network, input, call);
    EXPECT_EQ(passes.with_gradients, 66) << memory;
    // The forward pass that every request makes.
    EXPECT_EQ(passes.without, 1) << memory;
  }
}

// On a model of the demo, in the precision that is served: the same as 64
// gradients one by one, and a figure of what both take.
TEST(IntegratedGradientsCostTest, BatchesAreTheSumOfSinglePasses) {
  const auto checkpoint =
      Checkpoint::Open(LIMPID_SOURCE_DIR "/models/sentiment-mamba");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto network = LoadNetwork(*checkpoint, {at::kCPU, at::kFloat});
  ASSERT_TRUE(network.ok()) << network.status();
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < 32; ++i) ids.push_back(3 + 7 * i % 500);
  const NetworkInput input = testing::GoldenCase::Tokens(ids);
  const at::Tensor e = (*network)->Embed(input);
  MethodCall call;
  call.method = "integrated-gradients";
  call.position = 31;
  call.target = {1, 2};
  const Quadrature rule = MakeQuadrature(IntegrationRule::kCubic, 64);

  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  at::Tensor together, one_by_one;
  double batched = 1e9, single = 1e9;
  for (int round = 0; round < 2; ++round) {  // the first warms up
    Clock::time_point start = Clock::now();
    together = RunMethod(**network, input, call).elementwise;
    batched = std::min(batched, seconds(start));
    start = Clock::now();
    one_by_one = at::zeros_like(e[0], at::kDouble);
    for (size_t i = 0; i < rule.nodes.size(); ++i) {
      const auto gradients = GradientsOfTargets(
          **network, e * rule.nodes[i], {PointOf(**network, call)},
          Differentiation::kFull, /*by_block_outputs=*/false, CancelToken());
      ASSERT_TRUE(gradients.ok()) << gradients.status();
      one_by_one =
          one_by_one + gradients->front().gradient[0] * rule.weights[i];
    }
    single = std::min(single, seconds(start));
  }
  EXPECT_LE(testing::RelativeError(together, one_by_one * e[0]), 1e-4);
  std::printf(
      "figure: integrated gradients with 64 steps, L = 32, sentiment-mamba: "
      "%.0f ms, %.2f times 64 single forward and backward passes (%.0f ms)\n",
      1e3 * batched, batched / single, 1e3 * single);
}

}  // namespace
}  // namespace limpid
