// SPDX-License-Identifier: Apache-2.0
//
// Requests that wait for a worker are computed together, over TCP: which ones,
// who leaves, and what is counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/support/in_process_server.h"

namespace limpid::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class BatchingTest : public ::testing::Test {
 protected:
  // A call on a thread of its own.
  struct Waiter {
    grpc::ClientContext context;
    v1::ExplainResponse reply;
    google::api::HttpBody picture;
    std::future<grpc::Status> status;
  };

  // One worker, which a first request holds until Release.
  void Start() {
    server_.options.metrics = "127.0.0.1:0";
    server_.options.num_workers = 1;
    server_.options.batch.max_size = 4;
    server_.Start();
    server_.engine.Hold();
    first_ = Ask(TextRequest("first"));
    server_.engine.WaitForRuns(1);
  }
  std::unique_ptr<Waiter> Ask(const v1::ExplainRequest& request) {
    return Call([this, request](Waiter& w) {
      return server_.explanations().Explain(&w.context, request, &w.reply);
    });
  }
  // Returns when the call waits for the worker, unless it is the first.
  std::unique_ptr<Waiter> Call(
      const std::function<grpc::Status(Waiter& waiter)>& call) {
    const int64_t before = num_waiting();
    auto waiter = std::make_unique<Waiter>();
    waiter->context.set_deadline(
        absl::ToChronoTime(absl::Now() + absl::Minutes(1)));
    waiter->status = std::async(std::launch::async,
                                [call, w = waiter.get()] { return call(*w); });
    while (first_ != nullptr && num_waiting() == before) {
      std::this_thread::yield();
    }
    return waiter;
  }
  int64_t num_waiting() { return server_.serving().pool().load().num_waiting; }

  InProcessServer server_;
  std::unique_ptr<Waiter> first_;
};

TEST_F(BatchingTest, RequestsThatWaitAreComputedTogether) {
  Start();
  std::vector<std::unique_ptr<Waiter>> waiters;
  for (const char* text : {"aaaa", "bbbbb", "cccc", "ddddd", "eeee"}) {
    waiters.push_back(Ask(TextRequest(text)));
  }
  server_.engine.Release();
  for (size_t i = 0; i < waiters.size(); ++i) {
    ASSERT_TRUE(waiters[i]->status.get().ok());
    EXPECT_EQ(waiters[i]->reply.header().tokens_size(), i % 2 == 0 ? 4 : 5);
    EXPECT_EQ(waiters[i]->reply.header().tokens(0).piece(),
              std::string(1, static_cast<char>('a' + i)));
    EXPECT_GT(waiters[i]->reply.tensors_size(), 0);
  }
  EXPECT_TRUE(first_->status.get().ok());
  EXPECT_THAT(server_.engine.batch_sizes(), ElementsAre(1, 4, 1));
  const std::string metrics = server_.Scrape();
  EXPECT_THAT(metrics, HasSubstr("limpid_batch_size_count 3\n"));
  EXPECT_THAT(metrics, HasSubstr("limpid_batch_size_sum 6\n"));
  EXPECT_THAT(metrics, HasSubstr("limpid_batch_size_bucket{le=\"2\"} 2\n"));
}

TEST_F(BatchingTest, PicturesOfAttributionsJoin) {
  Start();
  v1::RenderHeatmapRequest request;
  request.set_model("a");
  request.mutable_input()->set_text("aaaa");
  const auto picture = Call([&](Waiter& w) {
    return server_.explanations().RenderHeatmap(&w.context, request,
                                                &w.picture);
  });
  const auto text = Ask(TextRequest("bbbb"));
  server_.engine.Release();
  EXPECT_TRUE(picture->status.get().ok());
  EXPECT_THAT(picture->picture.data(), HasSubstr("PNG"));
  EXPECT_TRUE(text->status.get().ok());
  EXPECT_THAT(server_.engine.batch_sizes(), ElementsAre(1, 2));
}

TEST_F(BatchingTest, OtherModelsLengthsAndStreamsStayOut) {
  Start();
  v1::ExplainRequest other = TextRequest("bbbb");
  other.set_model("b");
  const auto elsewhere = Ask(other);
  const auto longer = Ask(TextRequest("aaaaaaaa"));
  const auto stream = Call([&](Waiter& w) {
    auto reader =
        server_.explanations().StreamExplain(&w.context, TextRequest("cccc"));
    v1::StreamExplainResponse part;
    while (reader->Read(&part)) {
    }
    return reader->Finish();
  });
  const auto last = Ask(TextRequest("dddd"));
  server_.engine.Release();
  for (const auto* waiter : {&elsewhere, &longer, &stream, &last}) {
    EXPECT_TRUE((*waiter)->status.get().ok());
  }
  EXPECT_EQ(elsewhere->reply.header().model(), "b");
  // Streams don't come as batches at all.
  EXPECT_THAT(server_.engine.batch_sizes(), ElementsAre(1, 1, 1, 1));
  EXPECT_EQ(server_.engine.num_runs(), 5);
}

TEST_F(BatchingTest, WhoLeavesTheQueueLeavesTheOthersTheirReply) {
  Start();
  const auto a = Ask(TextRequest("aaaa")), b = Ask(TextRequest("bbbb")),
             c = Ask(TextRequest("cccc"));
  b->context.TryCancel();
  EXPECT_EQ(b->status.get().error_code(), grpc::StatusCode::CANCELLED);
  while (num_waiting() > 2) std::this_thread::yield();
  server_.engine.Release();
  EXPECT_TRUE(a->status.get().ok());
  EXPECT_TRUE(c->status.get().ok());
  EXPECT_THAT(server_.engine.batch_sizes(), ElementsAre(1, 2));
}

TEST_F(BatchingTest, AnEngineThatThrowsFailsEveryMember) {
  server_.engine.run_throws = true;
  Start();
  const auto a = Ask(TextRequest("aaaa")), b = Ask(TextRequest("bbbb"));
  server_.engine.Release();
  EXPECT_EQ(a->status.get().error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(b->status.get().error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(server_.serving().pool().load().num_waiting, 0);
}

TEST_F(BatchingTest, DrainingLetsABatchEnd) {
  Start();
  const auto a = Ask(TextRequest("aaaa")), b = Ask(TextRequest("bbbb"));
  auto drained = std::async(std::launch::async, [this] {
    return server_.serving().Drain(absl::Now() + absl::Seconds(20),
                                   absl::Now() + absl::Seconds(30));
  });
  while (!server_.serving().pool().load().draining) std::this_thread::yield();
  server_.engine.Release();
  EXPECT_TRUE(a->status.get().ok());
  EXPECT_TRUE(b->status.get().ok());
  EXPECT_TRUE(drained.get());
  EXPECT_THAT(server_.engine.batch_sizes(), ElementsAre(1, 2));
}

}  // namespace
}  // namespace limpid::testing
