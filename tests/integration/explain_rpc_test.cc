// SPDX-License-Identifier: Apache-2.0
//
// Explain over TCP: replies, and every refusal with its code and details.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <limits>

#include "google/api/httpbody.pb.h"
#include "tests/support/in_process_server.h"

namespace limpid::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class ExplainRpcTest : public ::testing::Test {
 protected:
  InProcessServer server_;
};

TEST_F(ExplainRpcTest, RepliesWithHeaderTensorsAndSummary) {
  server_.Start();
  v1::ExplainResponse reply;
  const grpc::Status status = server_.Explain(TextRequest("abc"), &reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(reply.header().model(), "a");
  EXPECT_EQ(reply.header().method(), "raw-attention");
  EXPECT_EQ(reply.header().server_version(), "1.2.3");
  EXPECT_EQ(reply.header().tokens(1).piece(), "b");
  ASSERT_EQ(reply.tensors_size(), 1);
  const v1::Tensor& tensor = reply.tensors(0);
  EXPECT_EQ(tensor.header().name(), "attribution");
  EXPECT_EQ(tensor.header().num_bytes(), 12);
  EXPECT_EQ(tensor.header().crc32(),
            crc32(0, reinterpret_cast<const Bytef*>(tensor.data().data()), 12));
  EXPECT_EQ(reply.summary().num_tensors(), 1);
  EXPECT_EQ(reply.summary().target().token_id(), 7);
  EXPECT_EQ(reply.summary().attributions(2).piece(), "c");
  EXPECT_FLOAT_EQ(reply.summary().attributions(2).value(), 2.5f);
  EXPECT_EQ(reply.summary().predictions(0).piece(), "\xEF\xBF\xBD");
  EXPECT_TRUE(reply.summary().cost().fits_unary_reply());
}

TEST_F(ExplainRpcTest, ValidateOnlyReturnsTheCost) {
  server_.Start();
  v1::ExplainRequest request = TextRequest("abc");
  request.set_validate_only(true);
  v1::ExplainResponse reply;
  ASSERT_TRUE(server_.Explain(request, &reply).ok());
  EXPECT_EQ(reply.tensors_size(), 0);
  EXPECT_GT(reply.summary().cost().reply_bytes(), 0);
}

TEST_F(ExplainRpcTest, UnknownModelNamesTheKnownOnesAndWhatElseIsWrong) {
  server_.Start();
  v1::ExplainRequest request = TextRequest("");
  request.set_model("zebra\n");
  const grpc::Status status = server_.Explain(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("a, b"));
  const Details details = DetailsOf(status);
  EXPECT_EQ(details.info.domain(), "limpid");
  EXPECT_EQ(details.info.reason(), "MODEL_NOT_FOUND");
  EXPECT_THAT(details.Fields(), UnorderedElementsAre("model", "input.text"));
}

TEST_F(ExplainRpcTest, WrongFieldsOfMessageAndModelComeTogether) {
  server_.Start();
  v1::ExplainRequest request = TextRequest("");
  request.mutable_input()->mutable_tokens()->add_ids(11);
  request.set_method("sorcery");
  request.mutable_options()->set_steps(3);
  request.mutable_attention()->add_layers(-1);
  request.mutable_attention()->add_layers(5);
  request.mutable_attention()->set_kind(v1::ATTENTION_KIND_UNSPECIFIED);
  request.mutable_faithfulness()->set_random_orders(0);
  const grpc::Status status = server_.Explain(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(
      DetailsOf(status).Fields(),
      UnorderedElementsAre("input.tokens.ids[0]", "method", "options.steps",
                           "attention.layers[0]", "attention.layers[1]",
                           "attention.kind", "faithfulness.random_orders"));
}

TEST_F(ExplainRpcTest, HeadersSayWhatAPrecisionIs) {
  server_.Start();
  v1::ExplainRequest request = TextRequest("abc");
  v1::ExplainResponse reply;
  ASSERT_TRUE(server_.Explain(request, &reply).ok());
  EXPECT_EQ(reply.header().arithmetic().precision(), v1::PRECISION_FLOAT32);
  EXPECT_EQ(reply.header().arithmetic().operands(), "float32");
  request.set_precision(v1::PRECISION_CHECKPOINT);
  ASSERT_TRUE(server_.Explain(request, &reply).ok());
  EXPECT_EQ(reply.header().arithmetic().precision(), v1::PRECISION_CHECKPOINT);
  EXPECT_EQ(reply.header().arithmetic().operands(), "bfloat16");
  EXPECT_EQ(reply.header().arithmetic().logits_error(), 0.004);
  request.set_precision(static_cast<v1::Precision>(4));
  const grpc::Status status = server_.Explain(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(status).Fields(), ElementsAre("precision"));
}

TEST_F(ExplainRpcTest, BytesThatAreNoMessageGetDetails) {
  server_.Start();
  grpc::GenericStub stub(server_.channel());
  const auto call = [&](const std::string& bytes) {
    grpc::ClientContext context;
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer reply;
    grpc::CompletionQueue queue;
    auto reader = stub.PrepareUnaryCall(
        &context, "/limpid.v1.ExplanationService/Explain", request, &queue);
    reader->StartCall();
    grpc::Status status;
    reader->Finish(&reply, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return status;
  };
  const grpc::Status garbage = call("\xFF\xFF\xFF");
  EXPECT_EQ(garbage.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(garbage).info.reason(), "REQUEST_UNREADABLE");
  // model = "a", input.text = "caf\xE9".
  const grpc::Status latin =
      call(std::string("\x0A\x01") + "a" + "\x12\x06" + "\x0A\x04" + "caf\xE9");
  EXPECT_EQ(latin.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(latin).Fields(), ElementsAre("input.text"));
}

TEST_F(ExplainRpcTest, TooLargeRepliesAreRefusedBeforeComputing) {
  server_.options.max_unary_reply_bytes = 1024;
  server_.engine.num_extra_floats = 1000;
  server_.Start();
  const grpc::Status status = server_.Explain(TextRequest("abc"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(status).info.reason(), "REPLY_TOO_LARGE");
  EXPECT_EQ(DetailsOf(status).info.metadata().at("limit_bytes"), "1024");
}

TEST_F(ExplainRpcTest, ManyViolationsStillFitTheTrailer) {
  server_.Start();
  v1::ExplainRequest request = TextRequest("");
  for (int i = 0; i < 5000; ++i) {
    request.mutable_input()->mutable_tokens()->add_ids(1000 + i);
    request.mutable_attention()->add_layers(-i);
  }
  const grpc::Status status = server_.Explain(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_details().size(), ::testing::Lt(4096u));
  EXPECT_THAT(DetailsOf(status).Fields(), Contains("attention.layers[1]"));
}

TEST_F(ExplainRpcTest, FailedModelsAnswerWithTheirReason) {
  ErrorDetails damage;
  damage.reason = "CHECKPOINT_DAMAGED";
  damage.metadata = {{"file", "model.safetensors"}, {"tensor", "w"}};
  server_.engine.load_errors["a"] = MakeError(
      absl::StatusCode::kDataLoss, "model.safetensors: w is cut", damage);
  server_.Start();
  const grpc::Status status = server_.Explain(TextRequest("abc"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  const Details details = DetailsOf(status);
  EXPECT_EQ(details.info.reason(), "CHECKPOINT_DAMAGED");
  EXPECT_EQ(details.info.metadata().at("file"), "model.safetensors");
  EXPECT_EQ(details.info.metadata().at("tensor"), "w");
  v1::ExplainRequest other = TextRequest("abc");
  other.set_model("b");
  EXPECT_TRUE(server_.Explain(other).ok());
}

TEST_F(ExplainRpcTest, EngineErrorsAndExceptionsKeepTheServerGoing) {
  server_.engine.run_throws = true;
  server_.Start();
  const grpc::Status thrown = server_.Explain(TextRequest("abc"));
  EXPECT_EQ(thrown.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_THAT(thrown.error_message(),
              HasSubstr(DetailsOf(thrown).info.metadata().at("request_id")));
  server_.engine.run_throws = false;
  EXPECT_TRUE(server_.Explain(TextRequest("abc")).ok());
}

TEST_F(ExplainRpcTest, ImagesAndNanPixelsAreRefused) {
  server_.Start();
  v1::ExplainRequest request = TextRequest("");
  request.mutable_input()->set_image("png");
  EXPECT_EQ(DetailsOf(server_.Explain(request)).info.reason(),
            "WRONG_MODALITY");
  v1::Tensor& pixels = *request.mutable_input()->mutable_pixels();
  for (const int side : {3, 1, 1}) pixels.mutable_header()->add_shape(side);
  pixels.add_floats(0);
  pixels.add_floats(std::numeric_limits<float>::quiet_NaN());
  pixels.add_floats(0);
  const grpc::Status status = server_.Explain(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(status).Fields(), ElementsAre("input.pixels"));
}

TEST_F(ExplainRpcTest, RequestIdsComeBack) {
  server_.Start();
  const auto call = [&](const char* id) {
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", id);
    v1::ExplainResponse reply;
    EXPECT_TRUE(server_.explanations()
                    .Explain(&context, TextRequest("a"), &reply)
                    .ok());
    const auto& metadata = context.GetServerInitialMetadata();
    const auto found = metadata.find("x-request-id");
    EXPECT_NE(found, metadata.end());
    const std::string back(found->second.data(), found->second.size());
    EXPECT_EQ(reply.header().request_id(), back);
    return back;
  };
  EXPECT_EQ(call("abc-1"), "abc-1");
  EXPECT_THAT(call("two words"), ::testing::MatchesRegex("[0-9a-f]+"));
}

TEST_F(ExplainRpcTest, HeatmapsArePng) {
  server_.Start();
  v1::RenderHeatmapRequest request;
  request.set_model("a");
  request.mutable_input()->set_text("abc");
  grpc::ClientContext context;
  google::api::HttpBody body;
  const grpc::Status status =
      server_.explanations().RenderHeatmap(&context, request, &body);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(body.content_type(), "image/png");
  EXPECT_EQ(body.data().substr(1, 3), "PNG");
}

}  // namespace
}  // namespace limpid::testing
