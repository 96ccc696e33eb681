// SPDX-License-Identifier: Apache-2.0
//
// The client against a server whose answers the test sets.
#include "client/client.h"

#include <atomic>
#include <cstdio>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_explanation_service.h"

namespace limpid {
namespace {

using testing::FakeHandlers;
using testing::FakeServer;
using testing::MakeError;
using testing::MakeResponse;
using testing::MakeStream;
using testing::StreamWriter;

std::unique_ptr<Client> Connect(const FakeServer& server,
                                ClientOptions options = {}) {
  options.target = server.address();
  auto client = Client::Create(options);
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

grpc::Status Write(const v1::ExplainResponse& response, StreamWriter& writer) {
  for (const auto& part : MakeStream(response, 4)) writer.Write(part);
  return grpc::Status::OK;
}

// Answers only once the call is cancelled or its deadline has passed.
grpc::Status Hang(grpc::ServerContext& context) {
  while (!context.IsCancelled()) absl::SleepFor(absl::Milliseconds(2));
  return grpc::Status::CANCELLED;
}

v1::ExplainRequest Request() {
  v1::ExplainRequest request;
  request.set_model("sentiment-mamba");
  request.mutable_input()->set_text("A good film");
  return request;
}

TEST(ClientTest, ExplainsByTheUnaryCall) {
  FakeHandlers handlers;
  handlers.explain = [](auto&, const v1::ExplainRequest& request,
                        v1::ExplainResponse& response) {
    EXPECT_EQ(request.input().text(), "A good film");
    response = MakeResponse();
    return grpc::Status::OK;
  };
  const FakeServer server(handlers);
  const auto result = Connect(server)->Explain(Request());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->tensors.size(), 3u);
}

TEST(ClientTest, StreamsWhatIsTooLargeForOneReply) {
  FakeHandlers handlers;
  handlers.explain = [](auto&, const auto&, auto&) {
    return MakeError(grpc::StatusCode::FAILED_PRECONDITION, "REPLY_TOO_LARGE",
                     "too large");
  };
  handlers.stream = [](auto&, const auto&, StreamWriter& writer) {
    return Write(MakeResponse(), writer);
  };
  const FakeServer server(handlers);
  const auto result = Connect(server)->Explain(Request());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->header.model(), "sentiment-mamba");
}

TEST(ClientTest, RepliesBeyondGrpcsDefaultLimitArrive) {
  FakeHandlers handlers;
  handlers.explain = [](auto&, const auto&, v1::ExplainResponse& response) {
    response = MakeResponse();
    *response.add_tensors() = testing::MakeTensor(
        "logits", {3 << 20}, std::vector<float>(3 << 20, 1.0f));
    return grpc::Status::OK;
  };
  const FakeServer server(handlers);
  EXPECT_TRUE(Connect(server)->Explain(Request()).ok());
}

TEST(ClientTest, ErrorsKeepTheirDetails) {
  FakeHandlers handlers;
  handlers.explain = [](auto&, const auto&, auto&) {
    return MakeError(
        grpc::StatusCode::INVALID_ARGUMENT, "INVALID_REQUEST", "two fields",
        {{"input.text", "is empty"}, {"options.steps", "is 5"}}, 1.5);
  };
  const FakeServer server(handlers);
  ClientOptions options;
  options.request_id = "id-7";
  const auto result = Connect(server, options)->Explain(Request());
  EXPECT_TRUE(absl::IsInvalidArgument(result.status()));
  EXPECT_EQ(result.status().message(), "two fields");
  const ErrorReport report = GetErrorReport(result.status());
  EXPECT_EQ(report.reason, "INVALID_REQUEST");
  ASSERT_EQ(report.violations.size(), 2u);
  EXPECT_EQ(report.violations[0].first, "input.text");
  EXPECT_EQ(report.retry_after, absl::Seconds(1.5));
  EXPECT_EQ(report.request_id, "id-7");
}

TEST(ClientTest, UnavailableIsTriedAgain) {
  std::atomic<int> calls = 0;
  FakeHandlers handlers;
  handlers.model = [&](const std::string& name, v1::Model& model) {
    if (++calls < 3) {
      return MakeError(grpc::StatusCode::UNAVAILABLE, "MODEL_LOADING",
                       "loading", {}, 0.01);
    }
    model.set_name(name);
    return grpc::Status::OK;
  };
  const FakeServer server(handlers);
  const auto model = Connect(server)->GetModel("m");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->name(), "m");
  EXPECT_EQ(calls, 3);
}

TEST(ClientTest, HeadersCarryTokenAndRequestId) {
  const std::string path = ::testing::TempDir() + "/token";
  std::ofstream(path) << "secret\nsecond line\n";
  std::mutex mutex;
  std::string authorization, request_id;
  FakeHandlers handlers;
  handlers.explain = [&](grpc::ServerContext& context, const auto&,
                         v1::ExplainResponse& response) {
    const std::lock_guard<std::mutex> lock(mutex);
    for (const auto& [key, value] : context.client_metadata()) {
      const std::string text(value.data(), value.size());
      if (key == "authorization") authorization = text;
      if (key == "x-request-id") request_id = text;
    }
    response = MakeResponse();
    return grpc::Status::OK;
  };
  const FakeServer server(handlers);
  ClientOptions options;
  options.token_file = path;
  EXPECT_TRUE(Connect(server, options)->Explain(Request()).ok());
  const std::lock_guard<std::mutex> lock(mutex);
  EXPECT_EQ(authorization, "Bearer secret");
  EXPECT_EQ(request_id.size(), 16u);
}

TEST(ClientTest, CreateRefusesFilesThatCanNotBeUsed) {
  ClientOptions options;
  options.ca_file = "/nonexistent";
  EXPECT_FALSE(Client::Create(options).ok());
  options = {};
  options.token_file = ::testing::TempDir() + "/empty-token";
  std::ofstream(options.token_file) << "\nsecond\n";
  EXPECT_FALSE(Client::Create(options).ok());
  std::ofstream(options.token_file) << "with\x01 control\n";
  EXPECT_FALSE(Client::Create(options).ok());
  options = {};
  options.request_id = "line\nbreak";
  EXPECT_FALSE(Client::Create(options).ok());
}

TEST(ClientTest, PassedDeadlineIsDeadlineExceeded) {
  FakeHandlers handlers;
  handlers.explain = [](grpc::ServerContext& context, const auto&, auto&) {
    return Hang(context);
  };
  const FakeServer server(handlers);
  ClientOptions options;
  options.deadline = absl::Milliseconds(50);
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      Connect(server, options)->Explain(Request()).status()));
}

TEST(ClientTest, CancelFromAnotherThreadEndsCalls) {
  std::atomic<bool> started = false;
  FakeHandlers handlers;
  handlers.stream = [&](grpc::ServerContext& context, const auto&,
                        StreamWriter& writer) {
    writer.Write(MakeStream(MakeResponse(), 4).front());
    started = true;
    return Hang(context);
  };
  const FakeServer server(handlers);
  const auto client = Connect(server);
  std::thread canceller([&] {
    while (!started) std::this_thread::yield();
    client->Cancel();
  });
  EXPECT_TRUE(absl::IsCancelled(client->StreamExplain(Request(), {}).status()));
  canceller.join();
  // And those that come later.
  EXPECT_TRUE(absl::IsCancelled(client->ListModels().status()));
}

TEST(ClientTest, CancelEndsTheWaitForAnotherTry) {
  std::atomic<int> calls = 0;
  FakeHandlers handlers;
  handlers.model = [&](const std::string&, v1::Model&) {
    ++calls;
    return MakeError(grpc::StatusCode::UNAVAILABLE, "DRAINING", "later", {},
                     20);
  };
  const FakeServer server(handlers);
  const auto client = Connect(server);
  std::thread canceller([&] {
    while (calls == 0) std::this_thread::yield();
    client->Cancel();
  });
  EXPECT_TRUE(absl::IsCancelled(client->GetModel("m").status()));
  canceller.join();
}

TEST(ClientTest, StreamWithoutSummaryIsDataLoss) {
  FakeHandlers handlers;
  handlers.stream = [](auto&, const auto&, StreamWriter& writer) {
    auto parts = MakeStream(MakeResponse(), 4);
    parts.pop_back();
    for (const auto& part : parts) writer.Write(part);
    return grpc::Status::OK;
  };
  const FakeServer server(handlers);
  EXPECT_TRUE(
      absl::IsDataLoss(Connect(server)->StreamExplain(Request(), {}).status()));
}

TEST(ClientTest, DamageEndsAnEndlessStream) {
  FakeHandlers handlers;
  handlers.stream = [](auto&, const auto&, StreamWriter& writer) {
    const auto parts = MakeStream(MakeResponse(), 4);
    while (writer.Write(parts.front())) {
    }
    return grpc::Status::OK;
  };
  const FakeServer server(handlers);
  EXPECT_TRUE(
      absl::IsDataLoss(Connect(server)->StreamExplain(Request(), {}).status()));
}

TEST(ClientTest, LateErrorsOfAStreamAreNotRepeated) {
  std::atomic<int> calls = 0;
  FakeHandlers handlers;
  handlers.stream = [&](auto&, const auto&, StreamWriter& writer) {
    ++calls;
    writer.Write(MakeStream(MakeResponse(), 4).front());
    return MakeError(grpc::StatusCode::UNAVAILABLE, "DRAINING", "later", {},
                     0.01);
  };
  const FakeServer server(handlers);
  EXPECT_TRUE(absl::IsUnavailable(
      Connect(server)->StreamExplain(Request(), {}).status()));
  EXPECT_EQ(calls, 1);
}

TEST(ClientTest, ListsModelsMethodsAndHealth) {
  FakeHandlers handlers;
  handlers.models.resize(2);
  handlers.models[0].set_name("a");
  handlers.methods.resize(1);
  handlers.methods[0].set_name("alti");
  const FakeServer server(handlers);
  const auto client = Connect(server);
  const auto models = client->ListModels();
  ASSERT_TRUE(models.ok());
  ASSERT_EQ(models->size(), 2u);
  EXPECT_EQ(models->front().name(), "a");
  EXPECT_EQ(client->ListMethods()->front().name(), "alti");
  EXPECT_EQ(*client->CheckHealth(""), "SERVING");
  EXPECT_TRUE(absl::IsNotFound(client->CheckHealth("nobody").status()));
}

TEST(ClientTest, NobodyThereIsUnavailable) {
  ClientOptions options;
  options.target = "127.0.0.1:1";
  const auto client = Client::Create(options);
  ASSERT_TRUE(client.ok());
  EXPECT_TRUE(absl::IsUnavailable((*client)->ListModels().status()));
}

}  // namespace
}  // namespace limpid
