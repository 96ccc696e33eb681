// SPDX-License-Identifier: Apache-2.0
//
// Many clients at once against a server with a real model over TCP: from
// batches everybody gets what he gets alone.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <future>
#include <iostream>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "limpid/v1/explanation.grpc.pb.h"
#include "server/attribution/method_spec.h"
#include "server/explain/engine.h"
#include "server/observe/log.h"
#include "server/rpc/serving.h"

namespace limpid {
namespace {

constexpr int kClients = 16;
constexpr int kRequestsOfClient = 20;
constexpr double kTolerance = 1e-5;  // relative L2

class BatchedModelsTest : public ::testing::Test {
 protected:
  BatchedModelsTest() {
    EngineOptions engine;
    engine.device = "cpu";
    engine_ = *Engine::Create(engine);
    options_.model_repository = LIMPID_SOURCE_DIR "/models";
    options_.startup_models = {"recall-mamba", "sentiment-griffin"};
    options_.metrics.reset();
    options_.methods = ListedMethods();
    options_.num_workers = 1;
  }

  std::unique_ptr<Serving> Start(int64_t max_batch_size) {
    options_.batch.max_size = max_batch_size;
    options_.batch.max_wait = absl::Milliseconds(20);
    auto serving = Serving::Start(options_, *engine_, log_);
    EXPECT_TRUE(serving.ok()) << serving.status();
    std::promise<void> loaded;
    (*serving)->LoadModels([&] { loaded.set_value(); });
    loaded.get_future().wait();
    (*serving)->SetServing();
    return *std::move(serving);
  }

  static v1::ExplainRequest MakeRequest(int number) {
    std::mt19937 random(number);
    const auto below = [&](int limit) {
      return static_cast<int>(random() % limit);
    };
    v1::ExplainRequest request;
    request.set_model(number % 4 == 0 ? "sentiment-griffin" : "recall-mamba");
    const int length = 20 + below(12);
    for (int i = 0; i < length; ++i) {
      request.mutable_input()->mutable_tokens()->add_ids(below(16));
    }
    const char* const methods[] = {"raw-attention", "attention-rollout",
                                   "value-contribution", "input-x-gradient"};
    request.set_method(methods[below(4)]);
    v1::Point& point = *request.add_points();
    point.mutable_position()->set_index(below(length));
    if (below(2) == 0) point.mutable_target()->set_token_id(below(16));
    request.mutable_output()->set_logits(true);
    return request;
  }

  static v1::ExplainResponse Ask(v1::ExplanationService::Stub& stub,
                                 int number) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Minutes(5)));
    v1::ExplainResponse reply;
    const grpc::Status status =
        stub.Explain(&context, MakeRequest(number), &reply);
    EXPECT_TRUE(status.ok()) << number << ": " << status.error_message();
    return reply;
  }

  std::unique_ptr<Engine> engine_;
  ServingOptions options_;
  Log log_{LogOptions{.level = LogLevel::kError}};
};

// Batches that have run, and how many requests were in them.
std::pair<int64_t, int64_t> Batches(const Metrics& metrics) {
  for (const auto& family : metrics.registry()->Collect()) {
    if (family.name != "limpid_batch_size") continue;
    const auto& histogram = family.metric.at(0).histogram;
    return {static_cast<int64_t>(histogram.sample_count),
            static_cast<int64_t>(histogram.sample_sum)};
  }
  return {};
}

void ExpectSame(const v1::ExplainResponse& a, const v1::ExplainResponse& b) {
  ASSERT_EQ(a.tensors_size(), b.tensors_size());
  for (int t = 0; t < a.tensors_size(); ++t) {
    const v1::Tensor &x = a.tensors(t), &y = b.tensors(t);
    EXPECT_EQ(x.header().name(), y.header().name());
    ASSERT_EQ(x.data().size(), y.data().size());
    if (x.header().data_type() != v1::DATA_TYPE_FLOAT32) {
      EXPECT_EQ(x.data(), y.data());
      continue;
    }
    double error = 0, norm = 0;
    for (size_t i = 0; i + 4 <= x.data().size(); i += 4) {
      float p = 0, q = 0;
      std::memcpy(&p, x.data().data() + i, 4);
      std::memcpy(&q, y.data().data() + i, 4);
      error += (double{p} - q) * (double{p} - q);
      norm += double{q} * q;
    }
    EXPECT_LE(std::sqrt(error), kTolerance * std::sqrt(norm))
        << x.header().name();
  }
  EXPECT_EQ(a.summary().num_tensors(), b.summary().num_tensors());
  EXPECT_LE(a.summary().max_reconstruction_error(), 1e-4);
}

TEST_F(BatchedModelsTest, ConcurrentClientsGetWhatALoneOneGets) {
  constexpr int kRequests = kClients * kRequestsOfClient;
  std::vector<v1::ExplainResponse> together(kRequests);
  {
    const auto serving = Start(/*max_batch_size=*/8);
    const auto stub = v1::ExplanationService::NewStub(grpc::CreateChannel(
        serving->address(), grpc::InsecureChannelCredentials()));
    std::vector<std::thread> clients;
    for (int client = 0; client < kClients; ++client) {
      clients.emplace_back([&, client] {
        for (int i = 0; i < kRequestsOfClient; ++i) {
          const int number = client * kRequestsOfClient + i;
          together[number] = Ask(*stub, number);
        }
      });
    }
    for (std::thread& client : clients) client.join();
    const auto [num_batches, num_members] = Batches(serving->metrics());
    EXPECT_EQ(num_members, kRequests);
    EXPECT_LT(num_batches, kRequests / 2);
    std::cout << "figure: " << num_members << " requests in " << num_batches
              << " batches\n";
  }
  const auto serving = Start(/*max_batch_size=*/1);
  const auto stub = v1::ExplanationService::NewStub(grpc::CreateChannel(
      serving->address(), grpc::InsecureChannelCredentials()));
  for (int number = 0; number < kRequests; ++number) {
    SCOPED_TRACE(absl::StrCat("request ", number));
    ExpectSame(together[number], Ask(*stub, number));
  }
}

}  // namespace
}  // namespace limpid
