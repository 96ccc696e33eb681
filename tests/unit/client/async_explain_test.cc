// SPDX-License-Identifier: Apache-2.0
//
// The callback form of Explain against a server whose answers the test sets.
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "client/client.h"
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

using Result = absl::StatusOr<Explanation>;

class AsyncExplainTest : public ::testing::Test {
 protected:
  void Connect(ClientOptions options = {}) {
    server_ = std::make_unique<FakeServer>(handlers_);
    options.target = server_->address();
    auto client = Client::Create(options);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  std::future<Result> Explain() {
    v1::ExplainRequest request;
    request.set_model("sentiment-mamba");
    request.mutable_input()->set_text("A good film");
    auto promise = std::make_shared<std::promise<Result>>();
    client_->ExplainAsync(request, [promise](Result result) {
      promise->set_value(std::move(result));
    });
    return promise->get_future();
  }

  FakeHandlers handlers_;
  std::unique_ptr<FakeServer> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(AsyncExplainTest, ManyCallsRunAtATime) {
  constexpr int kCalls = 4;
  std::atomic<int> inside = 0;
  handlers_.explain = [&](grpc::ServerContext& context, const auto&,
                          v1::ExplainResponse& response) {
    // No call ends before all have begun.
    ++inside;
    while (inside < kCalls && !context.IsCancelled()) {
      std::this_thread::yield();
    }
    response = MakeResponse();
    return grpc::Status::OK;
  };
  Connect();
  std::vector<std::future<Result>> results;
  for (int i = 0; i < kCalls; ++i) results.push_back(Explain());
  for (auto& result : results) {
    const Result explanation = result.get();
    ASSERT_TRUE(explanation.ok()) << explanation.status();
    EXPECT_EQ(explanation->tensors.size(), 3u);
  }
}

TEST_F(AsyncExplainTest, StreamsWhatIsTooLargeForOneReply) {
  handlers_.explain = [](auto&, const auto&, auto&) {
    return MakeError(grpc::StatusCode::FAILED_PRECONDITION, "REPLY_TOO_LARGE",
                     "too large");
  };
  handlers_.stream = [](auto&, const auto&, StreamWriter& writer) {
    for (const auto& part : MakeStream(MakeResponse(), 4)) writer.Write(part);
    return grpc::Status::OK;
  };
  Connect();
  const Result explanation = Explain().get();
  ASSERT_TRUE(explanation.ok()) << explanation.status();
  EXPECT_EQ(explanation->tensors.size(), 3u);
}

TEST_F(AsyncExplainTest, DamagedStreamsAreSeen) {
  handlers_.explain = [](auto&, const auto&, auto&) {
    return MakeError(grpc::StatusCode::FAILED_PRECONDITION, "REPLY_TOO_LARGE",
                     "too large");
  };
  handlers_.stream = [](auto&, const auto&, StreamWriter& writer) {
    auto parts = MakeStream(MakeResponse(), 4);
    parts.erase(parts.begin() + 3);  // a chunk of the first tensor
    for (const auto& part : parts) writer.Write(part);
    return grpc::Status::OK;
  };
  Connect();
  // The damage itself, not the missing summary that follows from it.
  EXPECT_EQ(GetErrorReport(Explain().get().status()).reason, "TENSOR_DAMAGED");
}

TEST_F(AsyncExplainTest, FullQueuesAreTriedAgainWhenTheServerSays) {
  std::atomic<int> calls = 0;
  handlers_.explain = [&](auto&, const auto&, v1::ExplainResponse& response) {
    if (++calls < 3) {
      return MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL",
                       "full", {}, 0.01);
    }
    response = MakeResponse();
    return grpc::Status::OK;
  };
  Connect();
  EXPECT_TRUE(Explain().get().ok());
  EXPECT_EQ(calls, 3);
}

TEST_F(AsyncExplainTest, ErrorsKeepTheirDetailsAndAreNotTriedAgain) {
  std::atomic<int> calls = 0;
  handlers_.explain = [&](auto&, const auto&, auto&) {
    ++calls;
    return MakeError(grpc::StatusCode::INVALID_ARGUMENT, "INVALID_REQUEST",
                     "wrong", {{"input.text", "is empty"}});
  };
  ClientOptions options;
  options.request_id = "id-7";
  Connect(options);
  const absl::Status status = Explain().get().status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_EQ(GetErrorReport(status).violations.size(), 1u);
  EXPECT_EQ(GetErrorReport(status).request_id, "id-7");
  EXPECT_EQ(calls, 1);
}

TEST_F(AsyncExplainTest, CancelEndsRunningCalls) {
  std::promise<void> begun;
  handlers_.explain = [&](grpc::ServerContext& context, const auto&, auto&) {
    begun.set_value();
    while (!context.IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  };
  Connect();
  auto result = Explain();
  begun.get_future().wait();
  client_->Cancel();
  EXPECT_TRUE(absl::IsCancelled(result.get().status()));
}

TEST_F(AsyncExplainTest, TheDestructorEndsCallsThatWaitForTheirNextTry) {
  std::atomic<int> calls = 0;
  std::promise<void> refused;
  handlers_.explain = [&](auto&, const auto&, auto&) {
    if (++calls == 1) refused.set_value();
    return MakeError(grpc::StatusCode::UNAVAILABLE, "MODEL_LOADING", "loading",
                     {}, 3600);
  };
  ClientOptions options;
  options.deadline = absl::Hours(5);
  Connect(options);
  auto result = Explain();
  refused.get_future().wait();
  client_.reset();
  EXPECT_EQ(result.wait_for(std::chrono::seconds(0)),
            std::future_status::ready);
  EXPECT_FALSE(result.get().ok());
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace limpid
