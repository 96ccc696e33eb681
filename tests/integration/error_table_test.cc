// SPDX-License-Identifier: Apache-2.0
//
// The table of errors: every code that the server gives, over TCP, with its
// details. UNAUTHENTICATED and PERMISSION_DENIED are in security_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "tests/support/in_process_server.h"

namespace limpid::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ErrorTableTest : public ::testing::Test {
 protected:
  // Checks what every error has and returns its details.
  Details Expect(const grpc::Status& status, grpc::StatusCode code,
                 const std::string& reason, bool retry = false) {
    const Details details = DetailsOf(status);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_EQ(details.info.reason(), reason);
    EXPECT_EQ(details.info.domain(), "limpid");
    EXPECT_EQ(details.info.metadata().count("request_id"), 1u);
    EXPECT_EQ(details.has_retry, retry);
    if (retry) {
      EXPECT_GT(details.retry_seconds, 0);
    }
    return details;
  }
  std::future<grpc::Status> ExplainAsync(grpc::ClientContext& context,
                                         const std::string& text = "abc") {
    return std::async(std::launch::async, [this, &context, text] {
      v1::ExplainResponse reply;
      return server_.explanations().Explain(&context, TextRequest(text),
                                            &reply);
    });
  }

  InProcessServer server_;
};

TEST_F(ErrorTableTest, UnknownModel) {
  server_.Start();
  v1::ExplainRequest request = TextRequest("abc");
  request.set_model("zebra");
  const grpc::Status status = server_.Explain(request);
  Expect(status, grpc::StatusCode::NOT_FOUND, "MODEL_NOT_FOUND");
  EXPECT_THAT(status.error_message(), AllOf(HasSubstr("a"), HasSubstr("b")));
}

TEST_F(ErrorTableTest, ModelThatIsBeingLoaded) {
  std::promise<void> go;
  std::shared_future<void> may_go = go.get_future().share();
  std::atomic<int> num_loads = 0;
  server_.engine.on_load = [&](const std::string&) {
    if (++num_loads > 2) may_go.wait();  // not when the server starts
  };
  server_.Start();
  grpc::ClientContext unload_context, load_context;
  v1::UnloadModelRequest unload;
  unload.set_model("a");
  v1::UnloadModelResponse unloaded;
  ASSERT_TRUE(
      server_.models().UnloadModel(&unload_context, unload, &unloaded).ok());
  auto loading = std::async(std::launch::async, [&] {
    v1::LoadModelRequest load;
    load.set_model("a");
    v1::LoadModelResponse loaded;
    return server_.models().LoadModel(&load_context, load, &loaded);
  });
  while (num_loads < 3) std::this_thread::yield();
  Expect(server_.Explain(TextRequest("abc")), grpc::StatusCode::UNAVAILABLE,
         "MODEL_LOADING", /*retry=*/true);
  go.set_value();
  EXPECT_TRUE(loading.get().ok());
  EXPECT_TRUE(server_.Explain(TextRequest("abc")).ok());
}

TEST_F(ErrorTableTest, ServerThatIsDraining) {
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
  Expect(server_.Explain(TextRequest("abc")), grpc::StatusCode::UNAVAILABLE,
         "SERVER_DRAINING", /*retry=*/true);
  server_.engine.Release();
  EXPECT_TRUE(drained.get());
  EXPECT_TRUE(running.get().ok());
}

TEST_F(ErrorTableTest, WrongFields) {
  server_.Start();
  v1::ExplainRequest request = TextRequest("");
  request.set_method("sorcery");
  request.mutable_attention()->add_layers(-7);
  const Details details =
      Expect(server_.Explain(request), grpc::StatusCode::INVALID_ARGUMENT,
             "INVALID_REQUEST");
  EXPECT_THAT(details.Fields(),
              ::testing::UnorderedElementsAre("input.text", "method",
                                              "attention.layers[0]"));
}

TEST_F(ErrorTableTest, WrongModality) {
  server_.Start();
  v1::ExplainRequest request = TextRequest("");
  request.mutable_input()->set_image("png");
  Expect(server_.Explain(request), grpc::StatusCode::FAILED_PRECONDITION,
         "WRONG_MODALITY");
}

TEST_F(ErrorTableTest, ReplyOverTheLimitOfUnaryReplies) {
  server_.options.max_unary_reply_bytes = 1024;
  server_.engine.num_extra_floats = 1000;
  server_.Start();
  server_.engine.Hold();  // nothing is computed, else this would hang
  const grpc::Status status = server_.Explain(TextRequest("abc"));
  const Details details =
      Expect(status, grpc::StatusCode::FAILED_PRECONDITION, "REPLY_TOO_LARGE");
  EXPECT_EQ(details.info.metadata().at("limit_bytes"), "1024");
  EXPECT_GT(std::stoi(details.info.metadata().at("reply_bytes")), 4000);
  EXPECT_THAT(status.error_message(), HasSubstr("StreamExplain"));
}

TEST_F(ErrorTableTest, FullQueue) {
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
  Expect(server_.Explain(TextRequest("third")),
         grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL", /*retry=*/true);
  server_.engine.Release();
  EXPECT_TRUE(running.get().ok());
  EXPECT_TRUE(waiting.get().ok());
}

TEST_F(ErrorTableTest, MemoryThatRunsOut) {
  server_.engine.run_status =
      MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", "full");
  server_.Start();
  Expect(server_.Explain(TextRequest("abc")),
         grpc::StatusCode::RESOURCE_EXHAUSTED, "OUT_OF_MEMORY");
}

TEST_F(ErrorTableTest, DamagedCheckpoint) {
  ErrorDetails damage;
  damage.reason = "CHECKPOINT_DAMAGED";
  damage.metadata = {{"file", "model.safetensors"}, {"tensor", "w"}};
  server_.engine.load_errors["a"] =
      MakeError(absl::StatusCode::kDataLoss, "w is cut", damage);
  server_.Start();
  const Details details =
      Expect(server_.Explain(TextRequest("abc")), grpc::StatusCode::DATA_LOSS,
             "CHECKPOINT_DAMAGED");
  EXPECT_EQ(details.info.metadata().at("file"), "model.safetensors");
  EXPECT_EQ(details.info.metadata().at("tensor"), "w");
}

TEST_F(ErrorTableTest, DeadlineBelowTheEstimate) {
  server_.engine.compute_seconds = 1e6;
  server_.Start();
  server_.engine.Hold();  // nothing is computed, else this would hang
  Expect(server_.Explain(TextRequest("abc")),
         grpc::StatusCode::DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT");
}

TEST_F(ErrorTableTest, DeadlineThatPasses) {
  // The server's own limit, for the caller's own makes its library answer
  // first.
  server_.options.max_request_time = absl::Milliseconds(20);
  server_.Start();
  server_.engine.Hold();
  Expect(server_.Explain(TextRequest("abc")),
         grpc::StatusCode::DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED");
}

TEST_F(ErrorTableTest, CallerThatHasGone) {
  server_.Start();
  server_.engine.Hold();
  grpc::ClientContext context;
  auto status = ExplainAsync(context);
  server_.engine.WaitForRuns(1);
  context.TryCancel();
  EXPECT_EQ(status.get().error_code(), grpc::StatusCode::CANCELLED);
  while (!absl::StrContains(server_.LogText(), "\"code\":\"CANCELLED\"")) {
    std::this_thread::yield();
  }
}

TEST_F(ErrorTableTest, OurOwnFault) {
  server_.engine.run_status = absl::UnknownError("a bug");
  server_.Start();
  const grpc::Status status = server_.Explain(TextRequest("abc"));
  const Details details =
      Expect(status, grpc::StatusCode::INTERNAL, "INTERNAL");
  EXPECT_THAT(status.error_message(),
              HasSubstr(details.info.metadata().at("request_id")));
}

TEST_F(ErrorTableTest, MessageOverTheLimit) {
  server_.options.rpc.max_request_bytes = 1024;
  server_.Start();
  const grpc::Status status =
      server_.Explain(TextRequest(std::string(5000, 'x')));
  // gRPC's own answer, which has no details.
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("1024"));
  EXPECT_THAT(status.error_details(), IsEmpty());
}

}  // namespace
}  // namespace limpid::testing
