// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/field_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "limpid/v1/explanation.pb.h"

namespace limpid {
namespace {

using ::testing::HasSubstr;

class FieldPathTest : public ::testing::Test {
 protected:
  std::string Set(absl::string_view path, const ParameterValue& value) {
    return SetFieldByPath(path, value, message_);
  }
  v1::ExplainRequest message_;
};

TEST_F(FieldPathTest, EveryTypeOfFieldIsSet) {
  EXPECT_EQ(Set("method", std::string("alti")), "");
  EXPECT_EQ(Set("options.steps", int64_t{16}), "");
  EXPECT_EQ(Set("options.seed", std::string("-3")), "");
  EXPECT_EQ(Set("options.residual_weight", 0.5), "");
  EXPECT_EQ(Set("options.smoothing_noise", std::string("0.25")), "");
  EXPECT_EQ(Set("options.special_tokens", false), "");
  EXPECT_EQ(Set("options.rule", std::string("INTEGRATION_RULE_MIDPOINT")), "");
  EXPECT_EQ(Set("options.baseline.mean", true), "");
  EXPECT_EQ(message_.method(), "alti");
  EXPECT_EQ(message_.options().steps(), 16);
  EXPECT_EQ(message_.options().seed(), -3);
  EXPECT_EQ(message_.options().residual_weight(), 0.5);
  EXPECT_EQ(message_.options().smoothing_noise(), 0.25);
  EXPECT_TRUE(message_.options().has_special_tokens());
  EXPECT_EQ(message_.options().rule(), v1::INTEGRATION_RULE_MIDPOINT);
  EXPECT_TRUE(message_.options().baseline().has_mean());
}

TEST_F(FieldPathTest, WrongPathsAndValuesAreExplained) {
  EXPECT_THAT(Set("optoins.steps", int64_t{16}), HasSubstr("optoins"));
  EXPECT_THAT(Set("method.name", std::string("a")), HasSubstr("no fields"));
  EXPECT_THAT(Set("", true), HasSubstr("no field"));
  EXPECT_THAT(Set("attention.layers", int64_t{1}), HasSubstr("list"));
  EXPECT_THAT(Set("points.target", int64_t{1}), HasSubstr("list"));
  EXPECT_THAT(Set("options", true), HasSubstr("fields of its own"));
  EXPECT_THAT(Set("options.baseline.mean", false), HasSubstr("true"));
  EXPECT_THAT(Set("options.special_tokens", int64_t{1}), HasSubstr("true or"));
  EXPECT_THAT(Set("options.steps", 16.5), HasSubstr("integer"));
  EXPECT_THAT(Set("options.steps", int64_t{1} << 40),
              HasSubstr("-2147483648 to 2147483647"));
  EXPECT_THAT(Set("options.steps", std::string("16x")), HasSubstr("integer"));
  EXPECT_THAT(Set("options.residual_weight", true), HasSubstr("number"));
  EXPECT_THAT(Set("method", int64_t{3}), HasSubstr("text"));
  EXPECT_THAT(Set("options.rule", std::string("midpoint")),
              HasSubstr("INTEGRATION_RULE_CUBIC, INTEGRATION_RULE_MIDPOINT"));
}

TEST_F(FieldPathTest, TwoKindsOfOneChoiceAreRefused) {
  EXPECT_EQ(Set("options.baseline.token_id", int64_t{3}), "");
  EXPECT_THAT(Set("options.baseline.mean", true), HasSubstr("token_id"));
  EXPECT_EQ(message_.options().baseline().token_id(), 3);
}

}  // namespace
}  // namespace limpid
