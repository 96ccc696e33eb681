// SPDX-License-Identifier: Apache-2.0
//
// JSON output parses, keeps its keys and loses no number.
#include "client/cli/json_output.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "client/decode.h"
#include "client/error_report.h"
#include "gtest/gtest.h"
#include "tests/support/fake_explanation_service.h"

namespace limpid::cli {
namespace {

using nlohmann::json;
using testing::MakeTensor;

json TensorJson(const v1::Tensor& tensor) {
  std::string out;
  const absl::Status status = AppendTensorJson(tensor, out);
  EXPECT_TRUE(status.ok()) << status;
  return json::parse(out);
}

TEST(JsonOutputTest, WholeReply) {
  const auto text = ExplanationJson(*DecodeResponse(testing::MakeResponse()));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->find('\n'), std::string::npos);
  const json reply = json::parse(*text);
  EXPECT_EQ(reply["header"]["modelDigest"], std::string(64, 'a'));
  EXPECT_EQ(reply["header"]["patchGrid"], json::array());  // present, empty
  EXPECT_EQ(reply["summary"]["predictions"][0]["piece"], " great");
  EXPECT_EQ(reply["summary"]["numNonFinite"], "0");
  EXPECT_FALSE(reply["summary"].contains("completenessError"));
  EXPECT_EQ(reply["tensors"]["tokens"], json({10, 11, 12}));
  EXPECT_EQ(reply["tensors"]["attribution"].size(), 3u);
}

TEST(JsonOutputTest, FloatsReadBackExactly) {
  const std::vector<float> values = {0.1f, 1e-38f, 16777217.0f, -0.0f};
  const json list = TensorJson(MakeTensor("a", {4}, values));
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(list[i].get<float>(), values[i]);
  }
}

TEST(JsonOutputTest, TensorsAreNestedByTheirShape) {
  EXPECT_EQ(TensorJson(MakeTensor("a", {2, 1, 2}, {1, 2, 3, 4})),
            json::parse("[[[1,2]],[[3,4]]]"));
  EXPECT_EQ(TensorJson(MakeTensor("a", {}, {5})), json(5));
}

TEST(JsonOutputTest, EmptyTensorsAreNotCountedThrough) {
  EXPECT_EQ(TensorJson(MakeTensor("a", {int64_t{1} << 60, 0}, {})),
            json::array());
}

TEST(JsonOutputTest, NonFiniteNumbersAreStrings) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(TensorJson(MakeTensor("a", {3},
                                  {std::numeric_limits<float>::quiet_NaN(),
                                   infinity, -infinity})),
            json({"NaN", "Infinity", "-Infinity"}));
}

TEST(JsonOutputTest, Errors) {
  const json error = json::parse(ErrorJson(FromGrpcStatus(
      testing::MakeError(grpc::StatusCode::INVALID_ARGUMENT, "INVALID_REQUEST",
                         "wrong", {{"input.text", "is empty"}}),
      "id-1")));
  EXPECT_EQ(error["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(error["reason"], "INVALID_REQUEST");
  EXPECT_EQ(error["violations"][0]["field"], "input.text");
  EXPECT_EQ(error["requestId"], "id-1");
}

TEST(JsonOutputTest, ErrorsWithoutDetailsOrUtf8) {
  const json error = json::parse(ErrorJson(absl::InternalError("bad \xff")));
  EXPECT_EQ(error["code"], "INTERNAL");
  EXPECT_EQ(error["violations"], json::array());
}

TEST(JsonOutputTest, DurationsThatJsonCanNotSayAreErrors) {
  v1::ExplanationSummary summary;
  summary.mutable_times()->mutable_queue()->set_seconds(
      std::numeric_limits<int64_t>::max());
  EXPECT_TRUE(absl::IsDataLoss(MessageJson(summary).status()));
}

}  // namespace
}  // namespace limpid::cli
