// SPDX-License-Identifier: Apache-2.0
//
// A server with two devices: requests of one model run on both once both have
// it, and health and metrics tell them apart.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/support/in_process_server.h"

namespace limpid::testing {
namespace {

using ::testing::HasSubstr;

class DevicesRpcTest : public ::testing::Test {
 protected:
  DevicesRpcTest() {
    server_.engine.device_names = {"cpu:0", "cpu:1"};
    server_.options.metrics = "127.0.0.1:0";
  }

  // Calls on threads of their own; texts differ, so that none is shared.
  std::vector<std::future<grpc::Status>> ExplainAsync(int count) {
    std::vector<std::future<grpc::Status>> calls;
    for (int i = 0; i < count; ++i) {
      calls.push_back(std::async(std::launch::async, [this, i] {
        return server_.Explain(TextRequest(std::string(i + 1, 'x')));
      }));
    }
    return calls;
  }
  bool Serves(const std::string& service) {
    const auto health = grpc::health::v1::Health::NewStub(server_.channel());
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    grpc::health::v1::HealthCheckResponse reply;
    return health->Check(&context, request, &reply).ok() &&
           reply.status() == grpc::health::v1::HealthCheckResponse::SERVING;
  }

  InProcessServer server_;
};

TEST_F(DevicesRpcTest, ModelsThatAreWantedGetACopyAndRunOnBoth) {
  server_.Start();
  const std::string home = server_.GetModel("a").device();
  EXPECT_NE(home, server_.GetModel("b").device()) << "models go where room is";
  server_.engine.Hold();
  auto calls = ExplainAsync(4);
  // One runs at home; another one as soon as there is a copy.
  server_.engine.WaitForRuns(2);
  EXPECT_EQ(server_.GetModel("a").device(), "cpu:0,cpu:1");
  EXPECT_EQ(server_.GetModel("a").resident_bytes(), 2000);
  EXPECT_THAT(server_.LogText(), HasSubstr("model copied"));
  std::string metrics = server_.Scrape();
  for (const char* device : {"cpu:0", "cpu:1"}) {
    EXPECT_THAT(metrics, HasSubstr("limpid_device_running{device=\"" +
                                   std::string(device) + "\"} 1"));
    EXPECT_THAT(metrics,
                HasSubstr("limpid_model_resident_bytes{device=\"" +
                          std::string(device) + "\",model=\"a\"} 1000"));
  }
  EXPECT_THAT(metrics, HasSubstr("limpid_model_copies_total{code=\"OK\""));
  server_.engine.Release();
  for (auto& call : calls) EXPECT_TRUE(call.get().ok());
  EXPECT_GE(server_.engine.num_runs_on(0), 1);
  EXPECT_GE(server_.engine.num_runs_on(1), 1);
  EXPECT_EQ(server_.engine.num_runs(), 4);
}

TEST_F(DevicesRpcTest, RepliesSayWhereTheyWereComputed) {
  server_.options.num_copies = 2;
  server_.Start();
  server_.engine.Hold();
  std::vector<std::future<std::string>> calls;
  for (int i = 0; i < 2; ++i) {
    calls.push_back(std::async(std::launch::async, [this, i] {
      v1::ExplainResponse reply;
      EXPECT_TRUE(
          server_.Explain(TextRequest(std::string(i + 1, 'x')), &reply).ok());
      return reply.header().device();
    }));
  }
  server_.engine.WaitForRuns(2);
  server_.engine.Release();
  EXPECT_NE(calls[0].get(), calls[1].get());
}

TEST_F(DevicesRpcTest, ACopyOfOneModelDoesNotHoldUpAnother) {
  server_.options.num_copies = 1;
  server_.Start();
  server_.engine.Hold();
  // More than one device takes, and none of them may run on the other.
  auto calls = ExplainAsync(3);
  server_.engine.WaitForRuns(1);
  auto other = std::async(std::launch::async, [this] {
    v1::ExplainRequest request = TextRequest("y");
    request.set_model("b");
    return server_.Explain(request);
  });
  server_.engine.WaitForRuns(2);
  EXPECT_EQ(server_.engine.num_runs_on(0), 1);
  EXPECT_EQ(server_.engine.num_runs_on(1), 1);
  server_.engine.Release();
  EXPECT_TRUE(other.get().ok());
  for (auto& call : calls) EXPECT_TRUE(call.get().ok());
}

TEST_F(DevicesRpcTest, HealthKnowsEachDevice) {
  server_.Start();
  server_.serving().SetServing();
  EXPECT_TRUE(Serves(""));
  EXPECT_TRUE(Serves("device:cpu:0"));
  EXPECT_TRUE(Serves("device:cpu:1"));
  EXPECT_FALSE(Serves("device:cpu:2"));
  EXPECT_TRUE(
      server_.serving().Drain(absl::InfinitePast(), absl::InfiniteFuture()));
}

TEST_F(DevicesRpcTest, WhatALostDeviceCouldNotDoIsUnavailable) {
  ErrorDetails details;
  details.reason = kDeviceLost;
  details.retry_after = absl::Seconds(1);
  server_.engine.run_status = MakeError(absl::StatusCode::kUnavailable,
                                        "the device has failed", details);
  server_.Start();
  const grpc::Status status = server_.Explain(TextRequest("abc"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(status).info.reason(), "DEVICE_LOST");
  EXPECT_TRUE(DetailsOf(status).has_retry);
}

}  // namespace
}  // namespace limpid::testing
