// SPDX-License-Identifier: Apache-2.0
//
// Saved explanations hold what the contract lists.
#include "client/cli/save_file.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "client/decode.h"
#include "gtest/gtest.h"
#include "server/checkpoint/safetensors.h"
#include "tests/support/fake_explanation_service.h"

namespace limpid::cli {
namespace {

using nlohmann::json;
using testing::MakeResponse;

std::string Path() { return ::testing::TempDir() + "/saved.safetensors"; }

float FloatAt(const TensorView& view, size_t index) {
  float value;
  std::memcpy(&value, view.data.data() + index * sizeof(value), sizeof(value));
  return value;
}

TEST(SaveFileTest, HoldsTensorsAndMetadata) {
  const auto explanation = DecodeResponse(MakeResponse());
  ASSERT_TRUE(explanation.ok());
  ASSERT_TRUE(SaveExplanation(Path(), *explanation).ok());
  const auto file = SafetensorsFile::Open(Path());
  ASSERT_TRUE(file.ok()) << file.status();
  const TensorView& attribution = file->tensors().at("attribution");
  EXPECT_EQ(attribution.shape, std::vector<int64_t>{3});
  EXPECT_EQ(attribution.dtype, DType::kFloat32);
  EXPECT_EQ(FloatAt(attribution, 1), 0.7f);
  EXPECT_EQ(file->tensors().at("tokens").dtype, DType::kInt64);
  EXPECT_EQ(file->tensors().count("layers.0.attention"), 1u);
  const auto& metadata = file->metadata();
  EXPECT_EQ(metadata.at("model"), "sentiment-mamba");
  EXPECT_EQ(metadata.at("model_digest").size(), 64u);
  EXPECT_EQ(metadata.at("architecture"), "mamba");
  EXPECT_EQ(metadata.at("method"), "raw-attention");
  EXPECT_EQ(metadata.at("target"), "token:42");
  EXPECT_EQ(metadata.at("position"), "2");
  EXPECT_EQ(metadata.at("server_version"), "0.1.0");
  EXPECT_EQ(metadata.at("device"), "cpu");
}

TEST(SaveFileTest, MetadataIsJsonWhereItHasParts) {
  v1::ExplainResponse response = MakeResponse();
  // Half of a character, as byte-level vocabularies have it.
  v1::Token& token = *response.mutable_header()->mutable_tokens(0);
  token.set_piece("\xEF\xBF\xBD");
  token.set_piece_bytes("\xC3");
  const auto metadata = SaveMetadata(*DecodeResponse(response));
  EXPECT_EQ(json::parse(metadata.at("prediction"))[0]["id"], 42);
  const json tokens = json::parse(metadata.at("tokens_json"));
  EXPECT_EQ(tokens[0]["piece_hex"], "c3");
  EXPECT_EQ(tokens[1]["piece"], " good");
  EXPECT_EQ(tokens[1]["begin"], 1);
  EXPECT_EQ(tokens[1]["end"], 6);
  EXPECT_EQ(json::parse(metadata.at("reconstruction_error"))["0"], 2.5e-7);
  EXPECT_TRUE(json::parse(metadata.at("completeness_error")).is_null());
}

TEST(SaveFileTest, CompletenessErrorIsANumber) {
  v1::ExplainResponse response = MakeResponse();
  response.mutable_summary()->set_completeness_error(-0.5);
  const auto metadata = SaveMetadata(*DecodeResponse(response));
  EXPECT_EQ(metadata.at("completeness_error"), "-0.5");
}

TEST(SaveFileTest, TokensComeFromTheHeaderIfNoTensorHasThem) {
  v1::ExplainResponse response = MakeResponse();
  response.mutable_tensors()->RemoveLast();
  ASSERT_TRUE(SaveExplanation(Path(), *DecodeResponse(response)).ok());
  const auto file = SafetensorsFile::Open(Path());
  ASSERT_TRUE(file.ok());
  const TensorView& tokens = file->tensors().at("tokens");
  int64_t id = 0;
  std::memcpy(&id, tokens.data.data() + 8, sizeof(id));
  EXPECT_EQ(id, 11);
}

TEST(SaveFileTest, PackedTensorsAreWidened) {
  v1::ExplainResponse response = MakeResponse();
  v1::Tensor& tensor = *response.add_tensors();
  tensor.set_data(std::string("\x00\x3c\x00\xc0\x00\x00", 6));  // 1, -2, 0
  v1::TensorHeader& header = *tensor.mutable_header();
  header.set_name("layers.1.attention");
  header.set_data_type(v1::DATA_TYPE_FLOAT16);
  header.set_layout(v1::TENSOR_LAYOUT_LOWER_TRIANGULAR);
  header.add_shape(2);
  header.add_shape(2);
  header.set_num_bytes(6);
  header.set_crc32(Crc32(tensor.data()));
  const auto explanation = DecodeResponse(response);
  ASSERT_TRUE(explanation.ok()) << explanation.status();
  ASSERT_TRUE(SaveExplanation(Path(), *explanation).ok());
  const auto file = SafetensorsFile::Open(Path());
  ASSERT_TRUE(file.ok());
  const TensorView& view = file->tensors().at("layers.1.attention");
  EXPECT_EQ(view.dtype, DType::kFloat32);
  EXPECT_EQ(view.shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(FloatAt(view, 0), 1);
  EXPECT_EQ(FloatAt(view, 1), 0);
  EXPECT_EQ(FloatAt(view, 2), -2);
}

TEST(SaveFileTest, UnwritablePathsAreErrors) {
  const auto explanation = DecodeResponse(MakeResponse());
  const absl::Status status =
      SaveExplanation("/nonexistent/folder/f", *explanation);
  EXPECT_FALSE(status.ok());
  EXPECT_NE(std::string(status.message()).find("/nonexistent/folder/f"),
            std::string::npos);
}

}  // namespace
}  // namespace limpid::cli
