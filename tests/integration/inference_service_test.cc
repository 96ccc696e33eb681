// SPDX-License-Identifier: Apache-2.0
//
// The Open Inference Protocol over real TCP, beside our own services.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <future>
#include <map>
#include <thread>

#include "absl/time/clock.h"
#include "inference/open_inference.grpc.pb.h"
#include "tests/support/in_process_server.h"

namespace limpid::testing {
namespace {

using inference::GRPCInferenceService;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class InferenceServiceTest : public ::testing::Test {
 protected:
  void Start() {
    server_.options.metrics = "127.0.0.1:0";
    server_.Start();
    stub_ = GRPCInferenceService::NewStub(server_.channel());
  }

  static inference::ModelInferRequest TextInfer(const std::string& text) {
    inference::ModelInferRequest request;
    request.set_model_name("a");
    request.set_id("mine");
    auto& tensor = *request.add_inputs();
    tensor.set_name("text");
    tensor.set_datatype("BYTES");
    tensor.add_shape(1);
    tensor.mutable_contents()->add_bytes_contents(text);
    return request;
  }

  grpc::Status Infer(const inference::ModelInferRequest& request,
                     inference::ModelInferResponse* reply = nullptr) {
    grpc::ClientContext context;
    inference::ModelInferResponse ignored;
    return stub_->ModelInfer(&context, request,
                             reply != nullptr ? reply : &ignored);
  }

  grpc::Status Load(const std::string& model, const std::string& token = "") {
    grpc::ClientContext context;
    if (!token.empty()) {
      context.AddMetadata("authorization", "Bearer " + token);
    }
    inference::RepositoryModelLoadRequest request;
    request.set_model_name(model);
    inference::RepositoryModelLoadResponse reply;
    return stub_->RepositoryModelLoad(&context, request, &reply);
  }

  grpc::Status Unload(const std::string& model) {
    grpc::ClientContext context;
    inference::RepositoryModelUnloadRequest request;
    request.set_model_name(model);
    // As Triton's client says it.
    (*request.mutable_parameters())["unload_dependents"].set_bool_param(false);
    inference::RepositoryModelUnloadResponse reply;
    return stub_->RepositoryModelUnload(&context, request, &reply);
  }

  bool ServerReady() {
    grpc::ClientContext context;
    inference::ServerReadyResponse reply;
    EXPECT_TRUE(stub_->ServerReady(&context, {}, &reply).ok());
    return reply.ready();
  }

  // Empty on an error.
  std::string State(const std::string& model) {
    grpc::ClientContext context;
    inference::RepositoryIndexResponse reply;
    EXPECT_TRUE(stub_->RepositoryIndex(&context, {}, &reply).ok());
    for (const auto& entry : reply.models()) {
      if (entry.name() == model) return entry.state();
    }
    return "";
  }

  InProcessServer server_;
  std::unique_ptr<GRPCInferenceService::Stub> stub_;
};

TEST_F(InferenceServiceTest, ExplanationsAreTypedTensors) {
  Start();
  inference::ModelInferResponse reply;
  ASSERT_TRUE(Infer(TextInfer("abc"), &reply).ok());
  EXPECT_EQ(reply.model_name(), "a");
  EXPECT_EQ(reply.model_version(), "1");
  EXPECT_EQ(reply.id(), "mine");
  ASSERT_EQ(reply.outputs_size(), 2);
  EXPECT_EQ(reply.outputs(0).name(), "attribution");
  EXPECT_EQ(reply.outputs(0).datatype(), "FP32");
  EXPECT_THAT(reply.outputs(0).shape(), ElementsAre(3));
  EXPECT_THAT(reply.outputs(0).contents().fp32_contents(),
              ElementsAre(0.5f, 1.5f, 2.5f));
  EXPECT_EQ(reply.outputs(1).name(), "tokens.pieces");
  EXPECT_THAT(reply.outputs(1).contents().bytes_contents(),
              ElementsAre("a", "b", "c"));
  EXPECT_EQ(reply.raw_output_contents_size(), 0);
  const auto& figures = reply.parameters();
  EXPECT_EQ(figures.at("max_reconstruction_error").double_param(), 1e-6);
  EXPECT_EQ(figures.at("method").string_param(), "raw-attention");
  EXPECT_EQ(figures.at("model_digest").string_param(), std::string(64, 'a'));
  EXPECT_EQ(figures.at("prediction.id").int64_param(), 7);
  EXPECT_EQ(figures.at("position").int64_param(), 2);
}

TEST_F(InferenceServiceTest, WhoAsksPackedIsAnsweredPacked) {
  Start();
  inference::ModelInferRequest request = TextInfer("abc");
  request.mutable_inputs(0)->clear_contents();
  request.add_raw_input_contents(std::string("\3\0\0\0abc", 7));
  inference::ModelInferResponse reply;
  ASSERT_TRUE(Infer(request, &reply).ok());
  ASSERT_EQ(reply.raw_output_contents_size(), 2);
  EXPECT_FALSE(reply.outputs(0).has_contents());
  std::vector<float> values(3);
  ASSERT_EQ(reply.raw_output_contents(0).size(), 12);
  std::memcpy(values.data(), reply.raw_output_contents(0).data(), 12);
  EXPECT_THAT(values, ElementsAre(0.5f, 1.5f, 2.5f));
  EXPECT_EQ(reply.raw_output_contents(1),
            std::string("\1\0\0\0a\1\0\0\0b\1\0\0\0c", 15));
}

TEST_F(InferenceServiceTest, OnlyWantedOutputsAreSent) {
  Start();
  inference::ModelInferRequest request = TextInfer("abc");
  request.add_outputs()->set_name("tokens.pieces");
  inference::ModelInferResponse reply;
  ASSERT_TRUE(Infer(request, &reply).ok());
  ASSERT_EQ(reply.outputs_size(), 1);
  EXPECT_EQ(reply.outputs(0).name(), "tokens.pieces");
  request.add_outputs()->set_name("attribution.layers");
  const grpc::Status status = Infer(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(status).info.reason(), "OUTPUT_NOT_MADE");
  EXPECT_THAT(status.error_message(), HasSubstr("attribution.layers"));
}

TEST_F(InferenceServiceTest, ErrorsAreThoseOfExplain) {
  Start();
  inference::ModelInferRequest request = TextInfer("abc");
  (*request.mutable_parameters())["method"].set_string_param("sorcery");
  EXPECT_THAT(DetailsOf(Infer(request)).Fields(), ElementsAre("method"));
  request = TextInfer("");
  EXPECT_THAT(DetailsOf(Infer(request)).Fields(), ElementsAre("input.text"));
  request = TextInfer("abc");
  request.set_model_name("zebra");
  const grpc::Status unknown = Infer(request);
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(DetailsOf(unknown).info.reason(), "MODEL_NOT_FOUND");
  request = TextInfer("abc");
  request.set_model_version("3");
  EXPECT_THAT(DetailsOf(Infer(request)).Fields(), ElementsAre("model_version"));
}

TEST_F(InferenceServiceTest, VersionsAreAskedForByNumber) {
  server_.repository.AddModel("v/1");
  server_.repository.AddModel("v/2");
  server_.options.startup_models = {"v", "v@1"};
  Start();
  inference::ModelInferRequest request = TextInfer("abc");
  request.set_model_name("v");
  for (const auto& [asked, got] :
       std::map<std::string, std::string>{{"", "2"}, {"1", "1"}, {"2", "2"}}) {
    request.set_model_version(asked);
    inference::ModelInferResponse reply;
    ASSERT_TRUE(Infer(request, &reply).ok()) << asked;
    EXPECT_EQ(reply.model_version(), got);
  }
  request.set_model_version("3");
  EXPECT_THAT(DetailsOf(Infer(request)).Fields(), ElementsAre("model_version"));
  grpc::ClientContext context;
  inference::ModelMetadataRequest about;
  about.set_name("v");
  inference::ModelMetadataResponse reply;
  ASSERT_TRUE(stub_->ModelMetadata(&context, about, &reply).ok());
  EXPECT_THAT(reply.versions(), ElementsAre("2", "1"));
}

TEST_F(InferenceServiceTest, BothServicesShareOneComputation) {
  server_.options.num_workers = 1;
  Start();
  server_.engine.Hold();
  v1::ExplainRequest own = TextRequest("abc");
  own.mutable_output()->set_logits(true);  // as all outputs ask for
  v1::ExplainResponse own_reply;
  auto first = std::async(std::launch::async,
                          [&] { return server_.Explain(own, &own_reply); });
  server_.engine.WaitForRuns(1);
  inference::ModelInferResponse reply;
  auto second = std::async(std::launch::async,
                           [&] { return Infer(TextInfer("abc"), &reply); });
  while (server_.Scrape().find("limpid_shared_requests_total 1") ==
         std::string::npos) {
    std::this_thread::yield();
  }
  server_.engine.Release();
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE(second.get().ok());
  EXPECT_EQ(server_.engine.num_runs(), 1);
  EXPECT_EQ(reply.outputs_size(), 2);
  EXPECT_NE(reply.parameters().at("request_id").string_param(),
            own_reply.header().request_id());
}

TEST_F(InferenceServiceTest, EveryRequestIsCountedAndLoggedAsOurs) {
  Start();
  ASSERT_TRUE(Infer(TextInfer("abc")).ok());
  EXPECT_THAT(server_.Scrape(),
              HasSubstr("limpid_requests_total{code=\"OK\",method="
                        "\"raw-attention\",model=\"a\"} 1"));
  server_.Stop();
  EXPECT_THAT(server_.LogText(), HasSubstr("ModelInfer"));
}

TEST_F(InferenceServiceTest, ModelsSayWhatTheyTakeAndGive) {
  Start();
  grpc::ClientContext context;
  inference::ModelMetadataRequest request;
  request.set_name("a");
  inference::ModelMetadataResponse reply;
  ASSERT_TRUE(stub_->ModelMetadata(&context, request, &reply).ok());
  EXPECT_EQ(reply.platform(), "limpid_mamba");
  EXPECT_THAT(reply.versions(), ElementsAre("1"));
  const auto describe = [](const auto& tensors) {
    std::vector<std::string> all;
    for (const auto& tensor : tensors) {
      std::string text = tensor.name() + " " + tensor.datatype();
      for (const int64_t size : tensor.shape()) {
        text += " " + std::to_string(size);
      }
      all.push_back(text);
    }
    return all;
  };
  EXPECT_THAT(describe(reply.inputs()),
              UnorderedElementsAre("text BYTES 1", "tokens INT64 -1"));
  EXPECT_THAT(
      describe(reply.outputs()),
      UnorderedElementsAre(
          "attribution FP32 -1", "attribution.layers FP32 2 -1",
          "layers.0.attention FP32 -1", "layers.1.attention FP32 -1",
          "logits FP32 10", "tokens INT64 -1", "tokens.pieces BYTES -1"));
}

TEST_F(InferenceServiceTest, ModelsAreLoadedAndUnloaded) {
  Start();
  EXPECT_EQ(State("a"), "READY");
  ASSERT_TRUE(Unload("a").ok());
  EXPECT_EQ(State("a"), "UNAVAILABLE");
  {
    grpc::ClientContext context;
    inference::ModelReadyRequest request;
    request.set_name("a");
    inference::ModelReadyResponse reply;
    ASSERT_TRUE(stub_->ModelReady(&context, request, &reply).ok());
    EXPECT_FALSE(reply.ready());
  }
  EXPECT_FALSE(Infer(TextInfer("abc")).ok());
  ASSERT_TRUE(Load("a").ok());
  EXPECT_EQ(State("a"), "READY");
  EXPECT_TRUE(Infer(TextInfer("abc")).ok());
  EXPECT_EQ(Load("zebra").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(DetailsOf(Load("")).Fields(), ElementsAre("model_name"));
}

TEST_F(InferenceServiceTest, LoadingNeedsTheRoleAdmin) {
  server_.options.token_file = server_.repository.path() + "/tokens";
  std::ofstream(server_.options.token_file)
      << "alice explain alice-0123456789abcdef\n"
         "root admin root-0123456789abcdef\n";
  Start();
  EXPECT_EQ(Load("a").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Load("a", "alice-0123456789abcdef").error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(Load("a", "root-0123456789abcdef").ok());
  EXPECT_EQ(Infer(TextInfer("abc")).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(InferenceServiceTest, ReadyUntilItStops) {
  Start();
  EXPECT_TRUE(ServerReady());
  // Draining waits for it.
  server_.engine.Hold();
  auto running =
      std::async(std::launch::async, [&] { return Infer(TextInfer("abc")); });
  server_.engine.WaitForRuns(1);
  std::thread drain([&] {
    server_.serving().Drain(absl::Now() + absl::Hours(1),
                            absl::Now() + absl::Hours(1));
  });
  while (ServerReady()) std::this_thread::yield();
  server_.engine.Release();
  EXPECT_TRUE(running.get().ok());
  drain.join();
}

}  // namespace
}  // namespace limpid::testing
