// SPDX-License-Identifier: Apache-2.0
//
// Flags are understood as the contract writes them; only what has no meaning is
// refused here.
#include "client/cli/flag_values.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace limpid::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(FlagValuesTest, Targets) {
  EXPECT_TRUE(ParseTarget("predicted")->has_predicted());
  EXPECT_EQ(ParseTarget("token:5")->token_id(), 5);
  EXPECT_EQ(ParseTarget("class:-1")->class_id(), -1);  // the server's to refuse
  EXPECT_EQ(ParseTarget("contrast:3,7")->contrast().id(), 3);
  EXPECT_EQ(ParseTarget("contrast:3,7")->contrast().baseline_id(), 7);
  for (const char* text : {"", "token:", "token:x", "token:1.5", "token: 1",
                           "class:99999999999999999999", "contrast:1",
                           "contrast:1,2,3", "Predicted", "token:1 "}) {
    EXPECT_FALSE(ParseTarget(text).ok()) << text;
  }
}

TEST(FlagValuesTest, TargetsAreWrittenAsTheyAreRead) {
  for (const char* text : {"predicted", "token:5", "class:0", "contrast:3,7"}) {
    EXPECT_EQ(FormatTarget(*ParseTarget(text)), text);
  }
  EXPECT_EQ(FormatTarget(v1::Target()), "");
}

TEST(FlagValuesTest, Positions) {
  EXPECT_TRUE(ParsePositions("last")->front().has_last());
  EXPECT_TRUE(ParsePositions("cls")->front().has_class_token());
  EXPECT_EQ(ParsePositions("0")->front().index(), 0);
  EXPECT_EQ(ParsePositions("-3")->front().index(), -3);
  const auto several = *ParsePositions("3-5,9");
  ASSERT_EQ(several.size(), 4u);
  EXPECT_EQ(several[2].index(), 5);
  EXPECT_EQ(several[3].index(), 9);
  EXPECT_FALSE(ParsePositions("first").ok());
  EXPECT_FALSE(ParsePositions("99999999999").ok());
}

TEST(FlagValuesTest, Layers) {
  EXPECT_THAT(*ParseNumbers("0-3,7"), ElementsAre(0, 1, 2, 3, 7));
  EXPECT_THAT(*ParseNumbers("5"), ElementsAre(5));
  EXPECT_THAT(*ParseNumbers("2,2"), ElementsAre(2, 2));
  EXPECT_THAT(*ParseNumbers("-1"), ElementsAre(-1));
  for (const char* text : {"", ",", "1,", "3-1", "a", "1-", "1-2-3", "--1"}) {
    EXPECT_FALSE(ParseNumbers(text).ok()) << text;
  }
}

TEST(FlagValuesTest, EndlessRangesAreRefused) {
  EXPECT_FALSE(ParseNumbers("0-2147483647").ok());
  EXPECT_FALSE(ParseNumbers("-2147483648-2147483647").ok());
}

TEST(FlagValuesTest, TokenIds) {
  EXPECT_THAT(*ParseTokenIds("1,2,3"), ElementsAre(1, 2, 3));
  EXPECT_THAT(*ParseTokenIds(""), ElementsAre());
  EXPECT_THAT(*ParseTokenIds("-1"), ElementsAre(-1));
  EXPECT_FALSE(ParseTokenIds("1,,2").ok());
  EXPECT_FALSE(ParseTokenIds("1 2").ok());
}

TEST(FlagValuesTest, Deadlines) {
  EXPECT_EQ(*ParseDeadline("30s"), absl::Seconds(30));
  EXPECT_EQ(*ParseDeadline("1m30s"), absl::Seconds(90));
  EXPECT_EQ(*ParseDeadline("250ms"), absl::Milliseconds(250));
  EXPECT_EQ(*ParseDeadline("5"), absl::Seconds(5));
  EXPECT_EQ(*ParseDeadline("inf"), absl::InfiniteDuration());
  EXPECT_FALSE(ParseDeadline("soon").ok());
  EXPECT_FALSE(ParseDeadline("nan").ok());
}

TEST(FlagValuesTest, EnumsByTheNamesThatPeopleWrite) {
  EXPECT_EQ(*ParseEnum(v1::ChannelReduction_descriptor(), "mean-abs"),
            v1::CHANNEL_REDUCTION_MEAN_ABS);
  EXPECT_EQ(*ParseEnum(v1::AttentionForm_descriptor(), "no-activation"),
            v1::ATTENTION_FORM_NO_ACTIVATION);
  EXPECT_FALSE(ParseEnum(v1::AttentionForm_descriptor(), "unspecified").ok());
  EXPECT_FALSE(ParseEnum(v1::AttentionForm_descriptor(), "FULL").ok());
  EXPECT_EQ(EnumNames(v1::AttentionKind_descriptor()), "none, row, matrix");
}

TEST(FlagValuesTest, UnitsOfAggregation) {
  EXPECT_EQ(ParseAggregation("word")->unit(), v1::AGGREGATION_UNIT_WORD);
  const auto spans = *ParseAggregation("span:0-3,7");
  EXPECT_EQ(spans.unit(), v1::AGGREGATION_UNIT_SPAN);
  ASSERT_EQ(spans.spans_size(), 2);
  EXPECT_EQ(spans.spans(0).end(), 4);
  EXPECT_EQ(spans.spans(1).begin(), 7);
  const auto regions = *ParseAggregation("region:0-1x2-5,3x4");
  EXPECT_EQ(regions.unit(), v1::AGGREGATION_UNIT_REGION);
  ASSERT_EQ(regions.regions_size(), 2);
  EXPECT_EQ(regions.regions(0).row_end(), 2);
  EXPECT_EQ(regions.regions(0).column_begin(), 2);
  EXPECT_EQ(regions.regions(1).column_end(), 5);
  for (const char* text : {"", "words", "span:", "span:3-1", "region:1",
                           "region:1x2x3", "span:0-2147483647"}) {
    EXPECT_FALSE(ParseAggregation(text).ok()) << text;
  }
}

TEST(FlagValuesTest, OptionsOfTheContract) {
  v1::MethodOptions options;
  for (const char* text :
       {"steps=64", "baseline=token:7", "rule=gauss-legendre", "start-layer=2",
        "axis=target", "compat=upstream", "norm=1", "special-tokens=false",
        "smoothing-noise=0.25", "seed=-4", "gradient-reduction=max-relu",
        "residual-weight=0.5", "baseline=tokens:3,4"}) {
    EXPECT_TRUE(SetMethodOption(text, options).ok()) << text;
  }
  EXPECT_EQ(options.steps(), 64);
  EXPECT_EQ(options.baseline().tokens().ids_size(), 2);
  EXPECT_EQ(options.gradient_reduction(), v1::GRADIENT_REDUCTION_MAX_RELU);
  EXPECT_EQ(options.rule(), v1::INTEGRATION_RULE_GAUSS_LEGENDRE);
  EXPECT_EQ(options.start_layer(), 2);
  EXPECT_EQ(options.axis(), v1::GRADIENT_AXIS_TARGET);
  EXPECT_EQ(options.compat(), v1::COMPATIBILITY_UPSTREAM);
  EXPECT_EQ(options.norm(), 1);
  EXPECT_TRUE(options.has_special_tokens());
  EXPECT_FALSE(options.special_tokens());
  EXPECT_EQ(options.smoothing_noise(), 0.25);
  EXPECT_EQ(options.seed(), -4);
}

TEST(FlagValuesTest, BaselinesByName) {
  EXPECT_TRUE(ParseBaseline("zero")->has_zero());
  EXPECT_TRUE(ParseBaseline("mean")->has_mean());
  EXPECT_TRUE(ParseBaseline("blur")->has_blur());
  EXPECT_FALSE(ParseBaseline("token:").ok());
}

TEST(FlagValuesTest, UnfitNumbersGoToTheServer) {
  v1::MethodOptions options;
  EXPECT_TRUE(SetMethodOption("steps=5000", options).ok());
  EXPECT_EQ(options.steps(), 5000);
}

TEST(FlagValuesTest, UnknownOptionsNameTheKnownOnes) {
  v1::MethodOptions options;
  const absl::Status status = SetMethodOption("stepz=5", options);
  EXPECT_THAT(std::string(status.message()), HasSubstr("special-tokens"));
  for (const char* text : {"steps", "steps=", "=5", "", "rule=quartic",
                           "norm=one", "special-tokens=yes"}) {
    EXPECT_FALSE(SetMethodOption(text, options).ok()) << text;
  }
}

}  // namespace
}  // namespace limpid::cli
