// SPDX-License-Identifier: Apache-2.0
//
// What requests hold while they run, and that they leave nothing behind.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "server/explain/engine.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/memory_meter.h"

namespace limpid {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

class ExplainMemoryTest : public ::testing::Test {
 protected:
  ExplainMemoryTest() {
    EngineOptions options;
    options.device = "cpu";
    engine_ = *Engine::Create(options);
    // 2 layers, D = 40, V = 37.
    model_ = *engine_->Load("tied", LIMPID_TEST_DATA "/checkpoints/mamba-tied");
  }
  // Tokens of the model, as many as that.
  static TokenInput Tokens(int64_t length) {
    TokenInput input;
    for (int64_t i = 0; i < length; ++i) input.ids.push_back(i * i % 37);
    return input;
  }
  std::shared_ptr<const Plan> PlanOf(const ExplainRequest& request) const {
    auto plan = engine_->MakePlan(request, model_);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan.ok() ? *plan : nullptr;
  }
  void Run(const ExplainRequest& request) const {
    testing::CollectingSink sink;
    const absl::Status status =
        engine_->Run(*PlanOf(request), sink, CancelToken());
    ASSERT_TRUE(status.ok()) << status;
  }
  static int64_t ResidentBytes() {
    std::ifstream file("/proc/self/statm");
    int64_t size = 0, resident = 0;
    file >> size >> resident;
    return resident * sysconf(_SC_PAGESIZE);
  }

  std::unique_ptr<Engine> engine_;
  std::shared_ptr<const Model> model_;
};

// A graph of one of these requests takes more than 200 kB, so that keeping one
// in ten would be seen.
TEST_F(ExplainMemoryTest, AThousandGradientRequestsLeaveNothing) {
  ExplainRequest request;
  request.input = Tokens(96);
  const std::vector<std::string> methods = {
      "gradient-norm", "input-x-gradient", "integrated-gradients",
      "frozen-linear", "attention-gradient"};
  const auto run = [&](int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      request.method = methods[i % methods.size()];
      request.options = {};
      if (request.method == "integrated-gradients") request.options.steps = 8;
      Run(request);
    }
  };
  run(100);
  const int64_t before = ResidentBytes();
  run(1000);
  const int64_t grown = ResidentBytes() - before;
  std::printf(
      "figure: resident memory after 1,000 gradient requests: %+.1f "
      "MiB\n",
      static_cast<double>(grown) / kMiB);
  EXPECT_LE(grown, 16 * kMiB);
}

TEST_F(ExplainMemoryTest, RolloutOfSignedMeansNeedsNoMatrix) {
  ExplainRequest request;
  request.method = "attention-rollout";
  request.attention.kind = AttentionKind::kNone;
  request.attention.reduction = ChannelReduction::kMean;
  const auto peak = [&](int64_t length) {
    request.input = Tokens(length);
    const int64_t bytes = testing::MeasureMemory([&] { Run(request); }).peak;
    EXPECT_LE(bytes, PlanOf(request)->cost().peak_bytes) << length;
    return bytes;
  };
  const int64_t length = 4096;
  const int64_t matrix = length * length * static_cast<int64_t>(sizeof(float));
  const int64_t whole = peak(length);
  std::printf(
      "figure: rollout of signed means, L = 4096: %.1f MiB, reserved "
      "%.1f MiB; one matrix is %.0f MiB\n",
      static_cast<double>(whole) / kMiB,
      static_cast<double>(PlanOf(request)->cost().peak_bytes) / kMiB,
      static_cast<double>(matrix) / kMiB);
  EXPECT_LE(whole, matrix / 4);
  EXPECT_LE(whole, 2.2 * peak(length / 2));
  const int64_t reserved = PlanOf(request)->cost().peak_bytes;
  request.input = Tokens(length);
  EXPECT_LE(PlanOf(request)->cost().peak_bytes, 2.2 * reserved);
  // The other reductions do make it.
  request.attention.reduction = ChannelReduction::kMeanAbs;
  EXPECT_GT(PlanOf(request)->cost().peak_bytes, 4 * matrix);
}

}  // namespace
}  // namespace limpid
