// SPDX-License-Identifier: Apache-2.0
//
// Deadlines, cancellation, a full queue, loading, unloading, draining.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "tests/support/in_process_server.h"

namespace limpid::testing {
namespace {

using ::testing::HasSubstr;

class LifecycleTest : public ::testing::Test {
 protected:
  // Calls Explain on a thread of its own.
  std::future<grpc::Status> ExplainAsync(grpc::ClientContext& context,
                                         const std::string& text = "abc") {
    return std::async(std::launch::async, [this, &context, text] {
      v1::ExplainResponse reply;
      return server_.explanations().Explain(&context, TextRequest(text),
                                            &reply);
    });
  }
  // The log's first line with `text`, waited for.
  std::string WaitForLog(const std::string& text) {
    while (true) {
      const std::string log = server_.LogText();
      const size_t at = log.find(text);
      if (at != std::string::npos) {
        const size_t begin = log.rfind('\n', at) + 1;
        return log.substr(begin, log.find('\n', at) - begin);
      }
      std::this_thread::yield();
    }
  }

  InProcessServer server_;
};

TEST_F(LifecycleTest, PassedDeadlinesEndRunningWork) {
  server_.Start();
  server_.engine.Hold();
  grpc::ClientContext context;
  context.set_deadline(
      absl::ToChronoTime(absl::Now() + absl::Milliseconds(50)));
  EXPECT_EQ(ExplainAsync(context).get().error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(WaitForLog("\"Explain\""), HasSubstr("DEADLINE_EXCEEDED"));
}

TEST_F(LifecycleTest, TheServersOwnLimitHoldsForCallsWithoutDeadline) {
  server_.options.max_request_time = absl::Milliseconds(20);
  server_.Start();
  server_.engine.Hold();
  const grpc::Status status = server_.Explain(TextRequest("abc"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(LifecycleTest, HopelessDeadlinesAreRefusedBeforeComputing) {
  server_.engine.compute_seconds = 1e6;
  server_.Start();
  const grpc::Status status = server_.Explain(TextRequest("abc"));
  EXPECT_EQ(DetailsOf(status).info.reason(), "DEADLINE_TOO_SHORT");
}

TEST_F(LifecycleTest, ShortRequestsAreComputedWhereTheyArrive) {
  server_.engine.compute_seconds = 1e-3;
  server_.Start();
  // Every worker computes something first.
  for (int i = 0; i < 100 && server_.engine.num_runs_where_planned() == 0;
       ++i) {
    ASSERT_TRUE(server_.Explain(TextRequest("abc")).ok());
  }
  EXPECT_EQ(server_.engine.num_runs_where_planned(), 1);
}

TEST_F(LifecycleTest, LongRequestsAreComputedByWorkers) {
  server_.engine.compute_seconds = 1;
  server_.Start();
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(server_.Explain(TextRequest("abc")).ok());
  }
  EXPECT_EQ(server_.engine.num_runs(), 10);
  EXPECT_EQ(server_.engine.num_runs_where_planned(), 0);
}

TEST_F(LifecycleTest, CancelledCallsEndTheirWork) {
  server_.Start();
  server_.engine.Hold();
  grpc::ClientContext context;
  auto status = ExplainAsync(context);
  server_.engine.WaitForRuns(1);
  context.TryCancel();
  EXPECT_EQ(status.get().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_THAT(WaitForLog("\"Explain\""), HasSubstr("CANCELLED"));
}

TEST_F(LifecycleTest, FullQueuesRefuseAndSayWhenToRetry) {
  server_.options.num_workers = 1;
  server_.options.max_queue_size = 1;
  server_.Start();
  server_.engine.Hold();
  grpc::ClientContext first, second;
  auto running = ExplainAsync(first);
  server_.engine.WaitForRuns(1);
  auto waiting = ExplainAsync(second, "another");
  while (server_.serving().pool().load().num_waiting < 1) {
    std::this_thread::yield();
  }
  const grpc::Status refused = server_.Explain(TextRequest("third"));
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailsOf(refused).info.reason(), "QUEUE_FULL");
  EXPECT_TRUE(DetailsOf(refused).has_retry);
  // What is wrong anyway is said so even then.
  EXPECT_EQ(server_.Explain(TextRequest("")).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  // A caller that goes gives its place back.
  second.TryCancel();
  EXPECT_EQ(waiting.get().error_code(), grpc::StatusCode::CANCELLED);
  while (server_.serving().pool().load().num_waiting > 0) {
    std::this_thread::yield();
  }
  server_.engine.Release();
  EXPECT_TRUE(running.get().ok());
}

TEST_F(LifecycleTest, UnloadingWaitsForRunningRequestsAndRefusesNewOnes) {
  server_.Start();
  server_.engine.Hold();
  grpc::ClientContext explain_context, unload_context;
  auto running = ExplainAsync(explain_context);
  server_.engine.WaitForRuns(1);
  v1::UnloadModelResponse unloaded;
  auto unload = std::async(std::launch::async, [&] {
    v1::UnloadModelRequest request;
    request.set_model("a");
    return server_.models().UnloadModel(&unload_context, request, &unloaded);
  });
  while (server_.serving().registry().Get("a")->state !=
         ModelState::kUnloading) {
    std::this_thread::yield();
  }
  const grpc::Status refused = server_.Explain(TextRequest("abc"));
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(refused).info.reason(), "MODEL_UNLOADING");
  EXPECT_TRUE(DetailsOf(refused).has_retry);
  server_.engine.Release();
  EXPECT_TRUE(running.get().ok());
  EXPECT_TRUE(unload.get().ok());
  EXPECT_EQ(unloaded.model().state(), v1::MODEL_STATE_UNLOADED);
  EXPECT_EQ(DetailsOf(server_.Explain(TextRequest("abc"))).info.reason(),
            "MODEL_NOT_LOADED");

  grpc::ClientContext load_context;
  v1::LoadModelRequest request;
  request.set_model("a");
  v1::LoadModelResponse loaded;
  EXPECT_TRUE(server_.models().LoadModel(&load_context, request, &loaded).ok());
  EXPECT_EQ(loaded.model().state(), v1::MODEL_STATE_READY);
  EXPECT_TRUE(server_.Explain(TextRequest("abc")).ok());
}

TEST_F(LifecycleTest, IdleModelsMakeRoomAndSaySo) {
  server_.options.metrics = "127.0.0.1:0";
  server_.options.startup_models = {"a"};
  server_.options.max_resident_bytes = FakeModel("").info().resident_bytes;
  server_.Start();
  const auto load = [this](const std::string& name) {
    grpc::ClientContext context;
    v1::LoadModelRequest request;
    request.set_model(name);
    v1::LoadModelResponse reply;
    return server_.models().LoadModel(&context, request, &reply);
  };
  server_.engine.Hold();
  grpc::ClientContext context;
  auto running = ExplainAsync(context);
  server_.engine.WaitForRuns(1);
  const grpc::Status full = load("b");
  EXPECT_EQ(full.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailsOf(full).info.reason(), "MODEL_MEMORY_FULL");
  EXPECT_TRUE(DetailsOf(full).has_retry);
  server_.engine.Release();
  EXPECT_TRUE(running.get().ok());

  EXPECT_TRUE(load("b").ok());
  grpc::ClientContext get_context;
  v1::GetModelRequest request;
  request.set_model("a");
  v1::GetModelResponse evicted;
  EXPECT_TRUE(server_.models().GetModel(&get_context, request, &evicted).ok());
  EXPECT_EQ(evicted.model().state(), v1::MODEL_STATE_UNLOADED);
  EXPECT_EQ(evicted.model().state_reason_code(), "MODEL_EVICTED");
  EXPECT_THAT(server_.Scrape(),
              HasSubstr("limpid_model_evictions_total{model=\"a\"} 1"));
  EXPECT_EQ(DetailsOf(server_.Explain(TextRequest("abc"))).info.reason(),
            "MODEL_NOT_LOADED");
}

TEST_F(LifecycleTest, DrainingLetsRunningWorkEndAndRefusesNew) {
  server_.Start();
  server_.engine.Hold();
  grpc::ClientContext context;
  auto running = ExplainAsync(context);
  server_.engine.WaitForRuns(1);
  auto drained = std::async(std::launch::async, [&] {
    return server_.serving().Drain(absl::InfiniteFuture(),
                                   absl::InfiniteFuture());
  });
  while (!server_.serving().pool().load().draining) std::this_thread::yield();
  const grpc::Status refused = server_.Explain(TextRequest("abc"));
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(refused).info.reason(), "SERVER_DRAINING");
  EXPECT_TRUE(DetailsOf(refused).has_retry);
  server_.engine.Release();
  EXPECT_TRUE(running.get().ok());
  EXPECT_TRUE(drained.get());
}

TEST_F(LifecycleTest, DrainingCancelsWhatIsNotDoneInTime) {
  server_.Start();
  server_.engine.Hold();
  grpc::ClientContext context;
  auto running = ExplainAsync(context);
  server_.engine.WaitForRuns(1);
  EXPECT_TRUE(
      server_.serving().Drain(absl::InfinitePast(), absl::InfiniteFuture()));
  const grpc::Status status = running.get();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(status).info.reason(), "SERVER_DRAINING");
}

TEST_F(LifecycleTest, VersionsShowInModelsAndReplies) {
  server_.repository.AddModel("v/1");
  server_.repository.AddModel("v/2");
  server_.engine.load_errors[server_.repository.path() + "/v/2"] =
      MakeError(absl::StatusCode::kDataLoss, "CHECKPOINT_DAMAGED", "half");
  server_.Start();
  EXPECT_EQ(server_.GetModel("v").state(), v1::MODEL_STATE_READY);
  EXPECT_EQ(server_.GetModel("v").version(), 1);
  EXPECT_THAT(server_.GetModel("v").available_versions(),
              ::testing::ElementsAre(2, 1));
  EXPECT_EQ(server_.GetModel("v").state_reason(), "version 2: half");
  EXPECT_THAT(WaitForLog("model not loaded"), HasSubstr("version 2: half"));
  EXPECT_EQ(server_.GetModel("a").version(), 0);
  EXPECT_EQ(server_.GetModel("a").available_versions_size(), 0);

  v1::ExplainRequest request = TextRequest("abc");
  v1::ExplainResponse reply;
  for (const char* name : {"v", "v@1"}) {
    request.set_model(name);
    ASSERT_TRUE(server_.Explain(request, &reply).ok()) << name;
    EXPECT_EQ(reply.header().model(), "v");
    EXPECT_EQ(reply.header().model_version(), 1);
  }
  request.set_model("v@2");
  EXPECT_EQ(DetailsOf(server_.Explain(request)).info.reason(),
            "MODEL_NOT_LOADED");
  request.set_model("v@3");
  EXPECT_EQ(server_.Explain(request).error_code(), grpc::StatusCode::NOT_FOUND);

  // A new version comes by request, and health has known no gap.
  server_.repository.AddModel("v/3");
  grpc::ClientContext context;
  v1::LoadModelRequest load;
  load.set_model("v");
  v1::LoadModelResponse loaded;
  ASSERT_TRUE(server_.models().LoadModel(&context, load, &loaded).ok());
  EXPECT_EQ(loaded.model().version(), 3);
  EXPECT_TRUE(loaded.model().state_reason().empty());
}

}  // namespace
}  // namespace limpid::testing
