// SPDX-License-Identifier: Apache-2.0
//
// A GPU whose context has failed, in a process of its own. Skipped without a
// GPU.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "server/explain/engine.h"
#include "tests/support/collecting_sink.h"

namespace limpid {
namespace {

using testing::CollectingSink;

// An index that only the device can find wrong: its assertion ends the context.
void BreakContext() {
  const auto on_gpu = at::device(at::Device(at::kCUDA, 0));
  try {
    const at::Tensor wrong = at::full({1}, 1000000, on_gpu.dtype(at::kLong));
    at::zeros({4}, on_gpu.dtype(at::kFloat)).index_select(0, wrong).cpu();
  } catch (const c10::Error&) {
  }
}

// What is wrong with how an engine takes the loss; empty: nothing.
std::string LoseDevice() {
  std::vector<std::string> lost;
  EngineOptions options;
  options.device = "cuda:0";
  options.on_device_lost = [&](const std::string& device) {
    lost.push_back(device);
  };
  const auto engine = *Engine::Create(options);
  const std::string folder = LIMPID_SOURCE_DIR "/models/recall-mamba";
  const auto model = *engine->Load("recall", folder);
  ExplainRequest request;
  request.input = TokenInput{{1, 2, 3, 4}};
  const auto run = [&] {
    CollectingSink sink;
    return engine->Run(**engine->MakePlan(request, model), sink, CancelToken());
  };
  if (!run().ok()) return "it did not work before";
  if (!lost.empty()) return "lost too early";
  BreakContext();
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = run();
    if (!absl::IsUnavailable(status) ||
        GetErrorDetails(status).reason != kDeviceLost) {
      return "a run ended with " + status.ToString();
    }
  }
  const absl::Status load = engine->Load("again", folder).status();
  if (!absl::IsUnavailable(load)) return "a load ended with " + load.ToString();
  if (engine->memory(0).has_value()) return "its memory was read";
  if (lost != std::vector<std::string>{"cuda:0"}) return "it was not told once";
  return "";
}

TEST(DeviceLostTest, RunsEndUnavailableAndItIsToldOnce) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const std::string wrong = LoseDevice();
        std::fprintf(stderr, "found: %s\n", wrong.c_str());
        // Nothing that the device held can be given back.
        std::_Exit(wrong.empty() ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "found: \n");
}

}  // namespace
}  // namespace limpid
