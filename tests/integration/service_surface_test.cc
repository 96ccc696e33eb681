// SPDX-License-Identifier: Apache-2.0
//
// What surrounds explanations: models, methods, health, reflection, metrics,
// logs, listeners.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/support/in_process_server.h"

namespace limpid::testing {
namespace {

using grpc::health::v1::HealthCheckResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ServiceSurfaceTest : public ::testing::Test {
 protected:
  // The state, or -1 if the service is not known.
  int Health(const std::shared_ptr<grpc::Channel>& channel,
             const std::string& service) {
    auto stub = grpc::health::v1::Health::NewStub(channel);
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    HealthCheckResponse response;
    const grpc::Status status = stub->Check(&context, request, &response);
    return status.ok() ? static_cast<int>(response.status()) : -1;
  }

  // Code of a call of the reflection service that sends nothing.
  grpc::StatusCode ReflectionCode(
      const std::shared_ptr<grpc::Channel>& channel) {
    grpc::GenericStub stub(channel);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    auto call = stub.PrepareCall(
        &context,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        &queue);
    void* tag = nullptr;
    bool ok = false;
    call->StartCall(nullptr);
    queue.Next(&tag, &ok);
    call->WritesDone(nullptr);
    queue.Next(&tag, &ok);
    grpc::Status status;
    call->Finish(&status, nullptr);
    queue.Next(&tag, &ok);
    return status.error_code();
  }

  InProcessServer server_;
};

TEST_F(ServiceSurfaceTest, ModelsAreListedWithStatesAndReasons) {
  server_.engine.load_errors["b"] =
      MakeError(absl::StatusCode::kDataLoss, "CHECKPOINT_DAMAGED", "cut short");
  server_.Start();
  grpc::ClientContext context;
  v1::ListModelsResponse list;
  ASSERT_TRUE(server_.models().ListModels(&context, {}, &list).ok());
  ASSERT_EQ(list.models_size(), 2);
  EXPECT_EQ(list.models(0).name(), "a");
  EXPECT_EQ(list.models(0).state(), v1::MODEL_STATE_READY);
  EXPECT_EQ(list.models(0).num_layers(), 2);
  EXPECT_EQ(list.models(0).max_tokens(), 4096);
  EXPECT_THAT(list.models(0).methods(), ElementsAre("raw-attention"));
  EXPECT_EQ(list.models(1).state(), v1::MODEL_STATE_FAILED);
  EXPECT_EQ(list.models(1).state_reason(), "cut short");
  EXPECT_EQ(list.models(1).state_reason_code(), "CHECKPOINT_DAMAGED");
}

TEST_F(ServiceSurfaceTest, GetModelRefusesUnknownAndEmptyNames) {
  server_.Start();
  const auto get = [&](const std::string& name) {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_model(name);
    v1::GetModelResponse response;
    return server_.models().GetModel(&context, request, &response);
  };
  EXPECT_TRUE(get("a").ok());
  EXPECT_EQ(get("zebra").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(get("../a").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(get("").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServiceSurfaceTest, MethodsNameTheirArchitecturesAndOptions) {
  server_.Start();
  grpc::ClientContext context;
  v1::ListMethodsResponse list;
  ASSERT_TRUE(server_.models().ListMethods(&context, {}, &list).ok());
  ASSERT_EQ(list.methods_size(), 2);
  EXPECT_THAT(list.methods(0).architectures(), ElementsAre("mamba", "vim"));
  EXPECT_THAT(list.methods(1).architectures(), ElementsAre("vim"));
  EXPECT_EQ(list.methods(1).options(0).name(), "steps");
}

TEST_F(ServiceSurfaceTest, HealthKnowsServerServicesAndModels) {
  server_.options.rpc.health = "127.0.0.1:0";
  server_.engine.load_errors["b"] = absl::DataLossError("cut");
  server_.Start();
  const auto plain = grpc::CreateChannel(server_.serving().health_address(),
                                         grpc::InsecureChannelCredentials());
  for (const auto& channel : {server_.channel(), plain}) {
    EXPECT_EQ(Health(channel, ""), HealthCheckResponse::SERVING);
    EXPECT_EQ(Health(channel, "limpid.v1.ExplanationService"),
              HealthCheckResponse::SERVING);
    EXPECT_EQ(Health(channel, "limpid.v1.ModelService"),
              HealthCheckResponse::SERVING);
    EXPECT_EQ(Health(channel, "a"), HealthCheckResponse::SERVING);
    EXPECT_EQ(Health(channel, "b"), HealthCheckResponse::NOT_SERVING);
    EXPECT_EQ(Health(channel, "zebra"), -1);
  }
  auto models = v1::ModelService::NewStub(plain);
  grpc::ClientContext context;
  v1::ListModelsResponse list;
  EXPECT_EQ(models->ListModels(&context, {}, &list).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(ReflectionCode(plain), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ServiceSurfaceTest, ReflectionIsThereByDefault) {
  server_.Start();
  EXPECT_EQ(ReflectionCode(server_.channel()), grpc::StatusCode::OK);
}

TEST_F(ServiceSurfaceTest, ReflectionCanBeSwitchedOff) {
  server_.options.rpc.reflection = false;
  server_.Start();
  EXPECT_EQ(ReflectionCode(server_.channel()), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ServiceSurfaceTest, MetricsCountRequestsWithoutFreeText) {
  server_.options.metrics = "127.0.0.1:0";
  server_.Start();
  ASSERT_TRUE(server_.Explain(TextRequest("abc")).ok());
  v1::ExplainRequest unknown = TextRequest("abc");
  unknown.set_model("zebra");
  unknown.set_method("sorcery");
  ASSERT_FALSE(server_.Explain(unknown).ok());
  const std::string metrics = server_.Scrape();
  EXPECT_THAT(metrics, HasSubstr("limpid_requests_total{code=\"OK\","
                                 "method=\"raw-attention\",model=\"a\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("limpid_requests_total{code=\"NOT_FOUND\","
                                 "method=\"unknown\",model=\"unknown\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("limpid_build_info{version=\"1.2.3\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("limpid_model_resident_bytes{device=\"cpu\","
                                 "model=\"a\"} 1000"));
  EXPECT_THAT(metrics,
              HasSubstr("limpid_weights_copied_bytes_total{device=\"cpu\"}"));
  EXPECT_THAT(metrics, HasSubstr("limpid_compute_duration_seconds_count"));
  EXPECT_THAT(metrics, HasSubstr("limpid_model_load_duration_seconds_count"));
  EXPECT_THAT(metrics, HasSubstr("grpc_code=\"NotFound\""));
  EXPECT_THAT(metrics, Not(HasSubstr("zebra")));
  EXPECT_THAT(metrics, Not(HasSubstr("sorcery")));
}

TEST_F(ServiceSurfaceTest, EveryRequestIsOneJsonLineWithoutText) {
  server_.Start();
  ASSERT_TRUE(server_.Explain(TextRequest("very secret")).ok());
  v1::ExplainRequest unknown = TextRequest("very secret");
  unknown.set_model("more secret");
  ASSERT_FALSE(server_.Explain(unknown).ok());
  server_.Stop();
  const std::string log = server_.LogText();
  EXPECT_THAT(log, Not(HasSubstr("secret")));
  std::istringstream lines(log);
  int num_requests = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json["message"] != "request") continue;
    ++num_requests;
    EXPECT_EQ(json["rpc"], "Explain");
    EXPECT_EQ(json["request_id"].get<std::string>().size(), 32u);
    EXPECT_TRUE(json.contains("time"));
    if (json["code"] == "OK") {
      EXPECT_EQ(json["model"], "a");
      EXPECT_EQ(json["tokens"], 11);
      EXPECT_GT(json["compute_ms"].get<double>(), 0);
      EXPECT_GT(json["reply_bytes"], 0);
    } else {
      EXPECT_EQ(json["reason"], "MODEL_NOT_FOUND");
    }
  }
  EXPECT_EQ(num_requests, 2);
}

TEST_F(ServiceSurfaceTest, OversizedRequestsAreRefused) {
  server_.options.rpc.max_request_bytes = 1024;
  server_.Start();
  EXPECT_EQ(server_.Explain(TextRequest(std::string(5000, 'x'))).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(server_.Explain(TextRequest("abc")).ok());
}

TEST_F(ServiceSurfaceTest, TakenPortsAreErrors) {
  server_.options.metrics = "127.0.0.1:0";
  server_.Start();
  std::ostringstream text;
  Log log(LogOptions(), text);
  ServingOptions options = server_.options;
  options.metrics.reset();
  options.rpc.listen = server_.serving().address();
  const auto second = Serving::Start(options, server_.engine, log);
  EXPECT_EQ(GetErrorDetails(second.status()).reason, "LISTEN_FAILED");
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("Address already in use"));
  options = server_.options;
  options.metrics = server_.serving().metrics_address();
  const auto third = Serving::Start(options, server_.engine, log);
  EXPECT_EQ(GetErrorDetails(third.status()).reason, "METRICS_LISTEN_FAILED");
}

TEST_F(ServiceSurfaceTest, StartupModelsMustExist) {
  std::ostringstream text;
  Log log(LogOptions(), text);
  server_.options.startup_models = {"a", "zebra"};
  const auto started = Serving::Start(server_.options, server_.engine, log);
  EXPECT_EQ(started.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(started.status().message()), HasSubstr("zebra"));
}

}  // namespace
}  // namespace limpid::testing
