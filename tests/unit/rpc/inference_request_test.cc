// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/inference_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace limpid {
namespace {

using inference::ModelInferRequest;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// Models have the version 1 only.
absl::StatusOr<InferenceRequest> Convert(const ModelInferRequest& message) {
  return ToExplainRequest(
      message, [](const char* field, const std::string& model,
                  const std::string& version, Violations& violations) {
        if (!version.empty() && version != "1") violations.Add(field, "wrong");
        return model;
      });
}

template <typename T>
std::string Packed(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()),
          values.size() * sizeof(T)};
}

std::string PackedString(const std::string& text) {
  return Packed<uint32_t>({static_cast<uint32_t>(text.size())}) + text;
}

ModelInferRequest Request(const std::string& name, const std::string& type,
                          const std::vector<int64_t>& shape) {
  ModelInferRequest request;
  request.set_model_name("a");
  auto& tensor = *request.add_inputs();
  tensor.set_name(name);
  tensor.set_datatype(type);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  return request;
}

ModelInferRequest TextInferRequest() {
  ModelInferRequest request = Request("text", "BYTES", {1});
  request.mutable_inputs(0)->mutable_contents()->add_bytes_contents("abc");
  return request;
}

v1::ExplainRequest Read(const ModelInferRequest& message) {
  const auto read = Convert(message);
  EXPECT_TRUE(read.ok()) << read.status();
  return read.ok() ? read->explain : v1::ExplainRequest();
}

// Fields that are wrong.
std::vector<std::string> Wrong(const ModelInferRequest& message) {
  const auto read = Convert(message);
  EXPECT_TRUE(absl::IsInvalidArgument(read.status())) << read.status();
  std::vector<std::string> fields;
  for (const auto& violation : GetErrorDetails(read.status()).violations) {
    fields.push_back(violation.field);
  }
  return fields;
}

TEST(InferenceRequestTest, TextComesTypedOrPacked) {
  EXPECT_EQ(Read(TextInferRequest()).input().text(), "abc");
  ModelInferRequest packed = Request("text", "BYTES", {1, 1});
  packed.add_raw_input_contents(PackedString("abc"));
  EXPECT_EQ(Read(packed).input().text(), "abc");
  EXPECT_EQ(Read(packed).model(), "a");
  EXPECT_TRUE(Convert(packed)->raw);
  EXPECT_FALSE(Convert(TextInferRequest())->raw);
}

TEST(InferenceRequestTest, TokensComeInTwoWidths) {
  ModelInferRequest wide = Request("tokens", "INT64", {1, 3});
  wide.add_raw_input_contents(Packed<int64_t>({1, -2, int64_t{1} << 40}));
  EXPECT_THAT(Read(wide).input().tokens().ids(),
              ElementsAre(1, -2, int64_t{1} << 40));
  ModelInferRequest narrow = Request("tokens", "INT32", {2});
  narrow.mutable_inputs(0)->mutable_contents()->add_int_contents(7);
  narrow.mutable_inputs(0)->mutable_contents()->add_int_contents(-1);
  EXPECT_THAT(Read(narrow).input().tokens().ids(), ElementsAre(7, -1));
}

TEST(InferenceRequestTest, PicturesComeAsFilesOrPixels) {
  ModelInferRequest file = Request("image", "BYTES", {1});
  file.add_raw_input_contents(PackedString(std::string("\x89PNG\0", 5)));
  EXPECT_EQ(Read(file).input().image(), std::string("\x89PNG\0", 5));
  ModelInferRequest pixels = Request("pixels", "FP32", {1, 3, 1, 2});
  const std::vector<float> values = {1, 2, 3, 4, 5, 6.5};
  pixels.add_raw_input_contents(Packed(values));
  const v1::Tensor tensor = Read(pixels).input().pixels();
  EXPECT_THAT(tensor.header().shape(), ElementsAre(3, 1, 2));
  EXPECT_EQ(tensor.header().data_type(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(tensor.data(), Packed(values));
}

TEST(InferenceRequestTest, ParametersAreFieldsByTheirPaths) {
  ModelInferRequest message = TextInferRequest();
  auto& parameters = *message.mutable_parameters();
  parameters["method"].set_string_param("integrated-gradients");
  parameters["options.steps"].set_int64_param(16);
  parameters["point.position.index"].set_int64_param(2);
  parameters["point.target.contrast.id"].set_int64_param(1);
  parameters["point.target.contrast.baseline_id"].set_uint64_param(2);
  parameters["attention.kind"].set_string_param("ATTENTION_KIND_MATRIX");
  parameters["content_type"].set_string_param("str");
  const v1::ExplainRequest request = Read(message);
  EXPECT_EQ(request.method(), "integrated-gradients");
  EXPECT_EQ(request.options().steps(), 16);
  ASSERT_EQ(request.points_size(), 1);
  EXPECT_EQ(request.points(0).position().index(), 2);
  EXPECT_EQ(request.points(0).target().contrast().id(), 1);
  EXPECT_EQ(request.points(0).target().contrast().baseline_id(), 2);
  EXPECT_EQ(request.attention().kind(), v1::ATTENTION_KIND_MATRIX);
}

TEST(InferenceRequestTest, OutputsDecideWhatIsComputed) {
  ModelInferRequest message = TextInferRequest();
  EXPECT_TRUE(Read(message).output().logits());
  EXPECT_FALSE(Read(message).attention().has_kind());
  message.add_outputs()->set_name("attribution");
  message.add_outputs()->set_name("tokens.pieces");
  EXPECT_FALSE(Read(message).output().logits());
  EXPECT_EQ(Read(message).attention().kind(), v1::ATTENTION_KIND_NONE);
  EXPECT_THAT(Convert(message)->outputs,
              ElementsAre("attribution", "tokens.pieces"));
  message.add_outputs()->set_name("layers.3.attention");
  message.add_outputs()->set_name("layers.1.attention");
  message.add_outputs()->set_name("logits");
  EXPECT_TRUE(Read(message).output().logits());
  EXPECT_FALSE(Read(message).attention().has_kind());
  EXPECT_THAT(Read(message).attention().layers(), ElementsAre(1, 3));
}

TEST(InferenceRequestTest, EverythingWrongIsNamedAtOnce) {
  ModelInferRequest message = Request("text", "FP32", {1});
  message.set_model_version("2");
  message.mutable_inputs(0)->mutable_contents()->add_bytes_contents("abc");
  (*message.mutable_inputs(0)->mutable_parameters())["binary_data"];
  message.add_outputs()->set_name("layers.x.attention");
  auto& parameters = *message.mutable_parameters();
  parameters["options.stepps"].set_int64_param(16);
  parameters["model"].set_string_param("b");
  parameters["input.text"].set_string_param("b");
  parameters["output.encoding"].set_string_param("TENSOR_ENCODING_FLOATS");
  parameters["method"];
  EXPECT_THAT(Wrong(message),
              UnorderedElementsAre(
                  "model_version", "inputs[0].parameters[\"binary_data\"]",
                  "inputs[0].datatype", "parameters[\"input.text\"]",
                  "parameters[\"method\"]", "parameters[\"model\"]",
                  "parameters[\"options.stepps\"]",
                  "parameters[\"output.encoding\"]", "outputs[0].name"));
}

TEST(InferenceRequestTest, WrongInputsAreNamed) {
  EXPECT_THAT(Wrong(ModelInferRequest()), ElementsAre("inputs"));
  ModelInferRequest two = TextInferRequest();
  *two.add_inputs() = two.inputs(0);
  EXPECT_THAT(Wrong(two), ElementsAre("inputs"));
  EXPECT_THAT(Wrong(Request("txt", "BYTES", {1})),
              ElementsAre("inputs[0].name"));
  EXPECT_THAT(Wrong(Request("text", "BYTES", {2})),
              ElementsAre("inputs[0].shape"));
  EXPECT_THAT(Wrong(Request("text", "BYTES", {1})),
              ElementsAre("inputs[0].contents.bytes_contents"));
  EXPECT_THAT(Wrong(Request("tokens", "INT64", {-1})),
              ElementsAre("inputs[0].shape"));
  EXPECT_THAT(Wrong(Request("tokens", "INT64", {int64_t{1} << 40, 1 << 30})),
              ElementsAre("inputs[0].shape"));
  EXPECT_THAT(Wrong(Request("tokens", "INT64", {3})), ElementsAre("inputs[0]"));
  ModelInferRequest both = TextInferRequest();
  both.add_raw_input_contents(PackedString("abc"));
  EXPECT_THAT(Wrong(both), ElementsAre("inputs[0].contents"));
}

TEST(InferenceRequestTest, DamagedPackedElementsAreRefused) {
  for (const std::string& bytes :
       {std::string("ab"), PackedString("abc") + "d", std::string(4, '\xFF'),
        PackedString("\xFF")}) {
    ModelInferRequest text = Request("text", "BYTES", {1});
    text.add_raw_input_contents(bytes);
    EXPECT_THAT(Wrong(text), ElementsAre("inputs[0]"));
  }
  for (const size_t size : {0, 8, 17, 23, 25, 32}) {
    ModelInferRequest tokens = Request("tokens", "INT64", {3});
    tokens.add_raw_input_contents(std::string(size, '\1'));
    EXPECT_THAT(Wrong(tokens), ElementsAre("inputs[0]")) << size;
  }
}

}  // namespace
}  // namespace limpid
