// SPDX-License-Identifier: Apache-2.0
//
// Identical requests in flight are computed once, whoever of them leaves; who
// counts as one client of the queue; the serving window.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/support/in_process_server.h"

namespace limpid::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class SharedRequestsTest : public ::testing::Test {
 protected:
  // A call on a thread of its own.
  struct Waiter {
    grpc::ClientContext context;
    v1::ExplainResponse reply;
    std::future<grpc::Status> status;
  };
  std::unique_ptr<Waiter> Ask(const v1::ExplainRequest& request,
                              absl::Duration deadline = absl::Minutes(1),
                              const std::string& token = "",
                              const std::string& forwarded_for = "") {
    auto waiter = std::make_unique<Waiter>();
    waiter->context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
    waiter->context.AddMetadata("x-request-id", absl::StrCat("id-", ++last_));
    if (!token.empty()) {
      waiter->context.AddMetadata("authorization", "Bearer " + token);
    }
    if (!forwarded_for.empty()) {
      waiter->context.AddMetadata("x-forwarded-for", forwarded_for);
    }
    waiter->status = std::async(std::launch::async, [this, request,
                                                     w = waiter.get()] {
      return server_.explanations().Explain(&w->context, request, &w->reply);
    });
    return waiter;
  }
  void Start() {
    server_.options.metrics = "127.0.0.1:0";
    server_.options.num_workers = 1;
    server_.Start();
    server_.engine.Hold();
  }
  void WaitForShared(int n) {
    const std::string line = absl::StrCat("limpid_shared_requests_total ", n);
    while (server_.Scrape().find(line) == std::string::npos) {
      std::this_thread::yield();
    }
  }
  void WaitForIdle() {
    while (server_.serving().pool().load().num_running +
               server_.serving().pool().load().num_waiting >
           0) {
      std::this_thread::yield();
    }
  }

  InProcessServer server_;
  int last_ = 0;
};

TEST_F(SharedRequestsTest, IdenticalRequestsAreComputedOnce) {
  Start();
  std::vector<std::unique_ptr<Waiter>> waiters;
  for (int i = 0; i < 5; ++i) waiters.push_back(Ask(TextRequest("abc")));
  WaitForShared(4);
  server_.engine.Release();
  for (size_t i = 0; i < waiters.size(); ++i) {
    ASSERT_TRUE(waiters[i]->status.get().ok());
    const v1::ExplainResponse& reply = waiters[i]->reply;
    EXPECT_EQ(reply.header().request_id(), absl::StrCat("id-", i + 1));
    EXPECT_EQ(reply.header().tokens_size(), 3);
    EXPECT_EQ(reply.tensors_size(), waiters[0]->reply.tensors_size());
    EXPECT_GT(reply.tensors_size(), 0);
  }
  EXPECT_EQ(server_.engine.num_runs(), 1);
  // What has ended is not remembered.
  EXPECT_TRUE(server_.Explain(TextRequest("abc")).ok());
  EXPECT_EQ(server_.engine.num_runs(), 2);
}

TEST_F(SharedRequestsTest, OtherRequestsAreNotShared) {
  Start();
  const auto one = Ask(TextRequest("abc"));
  server_.engine.WaitForRuns(1);
  v1::ExplainRequest more = TextRequest("abc");
  more.mutable_output()->set_logits(true);
  v1::ExplainRequest elsewhere = TextRequest("abc");
  elsewhere.set_model("b");
  const auto two = Ask(more), three = Ask(elsewhere);
  server_.engine.Release();
  EXPECT_TRUE(one->status.get().ok());
  EXPECT_TRUE(two->status.get().ok());
  EXPECT_TRUE(three->status.get().ok());
  EXPECT_EQ(three->reply.header().model(), "b");
  EXPECT_EQ(server_.engine.num_runs(), 3);
}

TEST_F(SharedRequestsTest, WhoeverLeavesLeavesTheOthersTheirReply) {
  Start();
  const auto first = Ask(TextRequest("abc"));
  server_.engine.WaitForRuns(1);
  const auto second = Ask(TextRequest("abc"));
  WaitForShared(1);
  const auto third = Ask(TextRequest("abc"));
  WaitForShared(2);
  first->context.TryCancel();
  EXPECT_EQ(first->status.get().error_code(), grpc::StatusCode::CANCELLED);
  third->context.TryCancel();
  EXPECT_EQ(third->status.get().error_code(), grpc::StatusCode::CANCELLED);
  // The server has heard of both when it has logged both.
  while (true) {
    const std::string log = server_.LogText();
    if (log.find("id-1") != std::string::npos &&
        log.find("id-3") != std::string::npos) {
      break;
    }
    std::this_thread::yield();
  }
  EXPECT_EQ(server_.serving().pool().load().num_running, 1);
  server_.engine.Release();
  EXPECT_TRUE(second->status.get().ok());
  EXPECT_EQ(second->reply.header().request_id(), "id-2");
  EXPECT_EQ(server_.engine.num_runs(), 1);
}

TEST_F(SharedRequestsTest, TheLastToLeaveEndsTheWork) {
  Start();
  const auto first = Ask(TextRequest("abc")), second = Ask(TextRequest("abc"));
  server_.engine.WaitForRuns(1);
  WaitForShared(1);
  first->context.TryCancel();
  second->context.TryCancel();
  WaitForIdle();  // although the engine is held
  EXPECT_THAT(server_.Scrape(),
              Not(HasSubstr("limpid_cancelled_compute_seconds_total 0\n")));
  // Nobody joins what was cancelled.
  const auto third = Ask(TextRequest("abc"));
  server_.engine.WaitForRuns(2);
  server_.engine.Release();
  EXPECT_TRUE(third->status.get().ok());
}

TEST_F(SharedRequestsTest, TheLatestDeadlineHoldsForTheWork) {
  Start();
  const auto first = Ask(TextRequest("abc"), absl::Milliseconds(300));
  server_.engine.WaitForRuns(1);
  const auto second = Ask(TextRequest("abc"));
  WaitForShared(1);
  EXPECT_EQ(first->status.get().error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  while (server_.LogText().find("id-1") == std::string::npos) {
    std::this_thread::yield();
  }
  server_.engine.Release();
  EXPECT_TRUE(second->status.get().ok());
  EXPECT_EQ(server_.engine.num_runs(), 1);
}

TEST_F(SharedRequestsTest, TheLatestDeadlineHoldsInTheQueueToo) {
  Start();
  const auto running = Ask(TextRequest("x"));
  server_.engine.WaitForRuns(1);
  const auto first = Ask(TextRequest("abc"), absl::Milliseconds(300));
  while (server_.serving().pool().load().num_waiting < 1) {
    std::this_thread::yield();
  }
  const auto second = Ask(TextRequest("abc"));
  WaitForShared(1);
  EXPECT_EQ(first->status.get().error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  while (server_.LogText().find("id-2") == std::string::npos) {
    std::this_thread::yield();
  }
  server_.engine.Release();
  EXPECT_TRUE(second->status.get().ok());
  EXPECT_TRUE(running->status.get().ok());
}

TEST_F(SharedRequestsTest, FailuresAreEverybodys) {
  server_.engine.run_status = absl::ResourceExhaustedError("no memory");
  Start();
  const auto first = Ask(TextRequest("abc")), second = Ask(TextRequest("abc"));
  WaitForShared(1);
  server_.engine.Release();
  for (const auto* waiter : {&first, &second}) {
    EXPECT_EQ((*waiter)->status.get().error_code(),
              grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
}

TEST_F(SharedRequestsTest, OneClientsFullQueueIsNotAnothers) {
  const std::string tokens[] = {std::string(32, 'a'), std::string(32, 'b')};
  server_.repository.AddFile(
      "tokens", absl::StrCat("alice explain ", tokens[0], "\nbob explain ",
                             tokens[1], "\n"));
  server_.options.token_file = server_.repository.path() + "/tokens";
  server_.options.max_client_queue_size = 1;
  Start();
  const absl::Duration minute = absl::Minutes(1);
  const auto running = Ask(TextRequest("x"), minute, tokens[0]);
  server_.engine.WaitForRuns(1);
  const auto waiting = Ask(TextRequest("y"), minute, tokens[0]);
  while (server_.serving().pool().load().num_waiting < 1) {
    std::this_thread::yield();
  }
  const auto refused = Ask(TextRequest("z"), minute, tokens[0]);
  EXPECT_EQ(DetailsOf(refused->status.get()).info.reason(),
            "CLIENT_QUEUE_FULL");
  const auto other = Ask(TextRequest("z"), minute, tokens[1]);
  server_.engine.Release();
  EXPECT_TRUE(other->status.get().ok());
  EXPECT_TRUE(waiting->status.get().ok());
  EXPECT_TRUE(running->status.get().ok());
}

class CallersOfOneAddressTest : public SharedRequestsTest {
 protected:
  // One call runs and one waits, both of one caller, whose queue is full so.
  void FillQueueOf(const std::string& caller) {
    server_.options.max_client_queue_size = 1;
    Start();
    running_ = Ask(TextRequest("x"), absl::Minutes(1), "", caller);
    server_.engine.WaitForRuns(1);
    waiting_ = Ask(TextRequest("y"), absl::Minutes(1), "", caller);
    while (server_.serving().pool().load().num_waiting < 1) {
      std::this_thread::yield();
    }
  }
  std::string RefusalOf(const std::string& caller) {
    const auto refused = Ask(TextRequest("z"), absl::Minutes(1), "", caller);
    return DetailsOf(refused->status.get()).info.reason();
  }

  std::unique_ptr<Waiter> running_, waiting_;
};

TEST_F(CallersOfOneAddressTest, AreToldApartWhenATrustedProxyDoes) {
  server_.options.rpc.connections.trusted_proxies = {
      *AddressRange::Parse("127.0.0.0/8")};
  FillQueueOf("192.0.2.1");
  EXPECT_EQ(RefusalOf("192.0.2.1"), "CLIENT_QUEUE_FULL");
  EXPECT_EQ(RefusalOf("192.0.2.2, 192.0.2.1"), "CLIENT_QUEUE_FULL");
  const auto other = Ask(TextRequest("z"), absl::Minutes(1), "", "192.0.2.2");
  server_.engine.Release();
  EXPECT_TRUE(other->status.get().ok());
  EXPECT_TRUE(waiting_->status.get().ok());
  EXPECT_TRUE(running_->status.get().ok());
}

TEST_F(CallersOfOneAddressTest, AreOneClientUnlessAProxyIsTrusted) {
  server_.options.rpc.connections.trusted_proxies = {
      *AddressRange::Parse("192.0.2.0/24")};
  FillQueueOf("192.0.2.1");
  EXPECT_EQ(RefusalOf("192.0.2.2"), "CLIENT_QUEUE_FULL");
  server_.engine.Release();
  EXPECT_TRUE(waiting_->status.get().ok());
  EXPECT_TRUE(running_->status.get().ok());
}

TEST_F(SharedRequestsTest, MemoryOfRunningRequestsIsBounded) {
  server_.engine.peak_bytes = 1000;
  server_.options.max_running_memory_bytes = 999;
  server_.Start();
  const grpc::Status status = server_.Explain(TextRequest("abc"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(status).info.reason(), "REQUEST_TOO_LARGE");
}

TEST_F(SharedRequestsTest, TheServingWindowServesAlthoughHealthSaysNo) {
  server_.options.serving_window = absl::Seconds(2);
  server_.Start();
  auto drained = std::async(std::launch::async, [this] {
    return server_.serving().Drain(absl::Now() + absl::Seconds(10),
                                   absl::Now() + absl::Seconds(20));
  });
  EXPECT_FALSE(server_.serving().pool().load().draining);
  EXPECT_TRUE(server_.Explain(TextRequest("abc")).ok());
  while (!server_.serving().pool().load().draining) std::this_thread::yield();
  EXPECT_FALSE(server_.Explain(TextRequest("abc")).ok());
  EXPECT_TRUE(drained.get());
}

}  // namespace
}  // namespace limpid::testing
