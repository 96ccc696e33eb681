// SPDX-License-Identifier: Apache-2.0
//
// For every listed architecture: what a run really holds never exceeds what it
// was admitted with.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "server/attribution/gradient.h"
#include "tests/support/memory_meter.h"
#include "tests/support/random_network.h"
#include "tests/support/run_method.h"

namespace limpid {
namespace {

using testing::MeasureMemory;
using testing::MethodCall;
using testing::TinyCase;

class Ignore final : public AttentionSink {
 public:
  absl::Status OnSlab(const AttentionSlab&) override {
    return absl::OkStatus();
  }
};

class MemoryTest : public ::testing::TestWithParam<TinyCase> {
 protected:
  // In float32, and where inputs are rounded.
  void ExpectUpperBounds(const Network* network);
};

TEST_P(MemoryTest, EstimatesAreUpperBounds) {
  const auto network = testing::MakeStoredNetwork(
      GetParam(), {at::kCPU, at::kFloat}, at::kBFloat16, 3);
  ExpectUpperBounds(network.get());
  ExpectUpperBounds(&network->In(Precision::kCheckpoint));
}

void MemoryTest::ExpectUpperBounds(const Network* network) {
  for (const int64_t length : testing::LengthsOf(*network, {65, 300})) {
    const at::Tensor e =
        network->Embed(testing::RandomInput(*network, 2, length, 1));
    const at::Tensor one = e.narrow(0, 0, 1);
    const int64_t forward =
        MeasureMemory([&] {
          EXPECT_TRUE(network->Forward(one, {0}, nullptr, CancelToken()).ok());
        }).peak;
    EXPECT_LE(forward, network->ForwardBytes(1, length)) << length;
    const int64_t visit =
        MeasureMemory([&] {
          EXPECT_TRUE(
              network
                  ->Forward(
                      one, {0},
                      [&](int64_t, int64_t, const BlockAttention& attention) {
                        const BlockMap map = attention.Map({});
                        Ignore sink;
                        return attention.Visit({}, {0, length}, sink,
                                               CancelToken());
                      },
                      CancelToken())
                  .ok());
        }).peak;
    EXPECT_LE(visit,
              network->ForwardBytes(1, length) + network->VisitBytes(length))
        << length;
    ResolvedTarget target;
    target.id = 1;
    const int64_t gradient =
        MeasureMemory([&] {
          EXPECT_TRUE(GradientsOfTargets(
                          *network, e, {{length - 1, length - 1, target}},
                          Differentiation::kFull,
                          /*by_block_outputs=*/false, CancelToken())
                          .ok());
        }).peak;
    EXPECT_LE(gradient, network->GradientBytes(2, length)) << length;
    std::printf(
        "figure: %s, L = %d: forward %.0f %%, visit %.0f %%, gradient %.0f %% "
        "of the estimate\n",
        GetParam().name.c_str(), static_cast<int>(length),
        100.0 * forward / network->ForwardBytes(1, length),
        100.0 * visit /
            (network->ForwardBytes(1, length) + network->VisitBytes(length)),
        100.0 * gradient / network->GradientBytes(2, length));
  }
}

MethodCall CallOf(const Network& network, const std::string& method,
                  int64_t length) {
  MethodCall call;
  call.method = method;
  call.position = network.info().modality == Modality::kImage
                      ? network.info().class_token
                      : length - 1;
  call.target.id = 1;
  return call;
}

// Within the price, and nothing is left once the result is gone: no graph, no
// tape.
TEST_P(MemoryTest, EveryMethodStaysWithinItsPriceAndKeepsNothing) {
  const auto network = testing::MakeRandomNetwork(GetParam(), at::kFloat, 3);
  const int64_t length = testing::LengthsOf(*network, {65}).front();
  const NetworkInput input = testing::RandomInput(*network, 1, length, 1);
  double largest = 0;
  for (const MethodSpec& method : ListedMethods()) {
    const MethodCall call = CallOf(*network, method.name, length);
    const auto use = MeasureMemory([&] { RunMethod(*network, input, call); });
    const auto reduced =
        3 * length * length * static_cast<int64_t>(sizeof(float));
    const int64_t price = network->ForwardBytes(1, length) +
                          network->VisitBytes(length) + reduced +
                          PriceOf(*network, length, call).bytes;
    EXPECT_GT(use.peak, 0) << method.name;
    EXPECT_LE(use.peak, price) << method.name;
    EXPECT_EQ(use.left, 0) << method.name;
    largest = std::max(largest, static_cast<double>(use.peak) / price);
  }
  std::printf("figure: %s: methods hold at most %.0f %% of their price\n",
              GetParam().name.c_str(), 100 * largest);
}

// As many steps at once as the budget has room for, however many there are.
TEST_P(MemoryTest, IntegratedGradientsHoldWhatTheBudgetAllows) {
  const auto network = testing::MakeRandomNetwork(GetParam(), at::kFloat, 3);
  const int64_t length = testing::LengthsOf(*network, {33}).front();
  const NetworkInput input = testing::RandomInput(*network, 1, length, 1);
  MethodCall call = CallOf(*network, "integrated-gradients", length);
  const auto peak = [&](int64_t sequences, int64_t steps) {
    call.memory_bytes = network->GradientBytes(sequences, length);
    call.options.steps = steps;
    return MeasureMemory([&] { RunMethod(*network, input, call); }).peak;
  };
  const int64_t few = peak(4, 8), many = peak(4, 64);
  EXPECT_LE(many, 1.01 * few);
  EXPECT_GT(peak(16, 16), 2 * many);  // it does use what it may
}

INSTANTIATE_TEST_SUITE_P(Architectures, MemoryTest,
                         ::testing::ValuesIn(testing::TinyCases()),
                         [](const ::testing::TestParamInfo<TinyCase>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace limpid
