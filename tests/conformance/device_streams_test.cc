// SPDX-License-Identifier: Apache-2.0
//
// On a GPU, runs of several threads overlap on streams of their own, and get
// what one alone gets; models come and go meanwhile. Skipped without a GPU.
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "server/explain/engine.h"
#include "tests/support/collecting_sink.h"

namespace limpid {
namespace {

using testing::CollectingSink;

constexpr int kThreads = 4;
constexpr int kRunsOfThread = 50;

std::vector<float> Attribution(const Engine& engine, const Plan& plan) {
  CollectingSink sink;
  const absl::Status status = engine.Run(plan, sink, CancelToken());
  EXPECT_TRUE(status.ok()) << status;
  return sink.Floats("attribution");
}

TEST(DeviceStreamsTest, ConcurrentRunsGetWhatALoneOneGets) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  EngineOptions options;
  options.device = "cuda";
  const auto engine = Engine::Create(options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const auto load = [&] {
    auto model =
        (*engine)->Load("recall", LIMPID_SOURCE_DIR "/models/recall-mamba");
    EXPECT_TRUE(model.ok()) << model.status();
    return *model;
  };
  const auto make_plan = [&](std::shared_ptr<const Model> model, int number) {
    ExplainRequest request;
    request.method = number % 2 == 0 ? "attention-rollout" : "input-x-gradient";
    TokenInput input;
    for (int i = 0; i < 40 + number; ++i) {
      input.ids.push_back((number + 5 * i) % 16);
    }
    request.input = input;
    auto plan = (*engine)->MakePlan(request, std::move(model));
    EXPECT_TRUE(plan.ok()) << plan.status();
    return *plan;
  };
  std::vector<std::vector<float>> alone;
  for (int number = 0; number < kThreads; ++number) {
    alone.push_back(Attribution(**engine, *make_plan(load(), number)));
  }
  std::atomic<int> num_wrong{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < kThreads; ++number) {
    threads.emplace_back([&, number] {
      std::shared_ptr<const Model> model = load();
      for (int run = 0; run < kRunsOfThread; ++run) {
        // Weights that have just come are read, those that go are not.
        if (run % 10 == 9) model = load();
        const auto values = Attribution(**engine, *make_plan(model, number));
        double error = 0, norm = 0;
        for (size_t i = 0; i < alone[number].size(); ++i) {
          error += std::pow(double{values.at(i)} - alone[number][i], 2);
          norm += std::pow(double{alone[number][i]}, 2);
        }
        if (!(error <= 1e-10 * norm)) ++num_wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_wrong, 0);
}

}  // namespace
}  // namespace limpid
