// SPDX-License-Identifier: Apache-2.0
#include "client/cli/explain_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "client/cli/target_words.h"

namespace limpid::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

google::protobuf::RepeatedPtrField<v1::TokenAttribution> Values(
    const std::vector<float>& values) {
  google::protobuf::RepeatedPtrField<v1::TokenAttribution> attributions;
  for (const float value : values) attributions.Add()->set_value(value);
  return attributions;
}

TEST(CompletenessTextTest, SmallErrorsAreTheNumberAlone) {
  EXPECT_EQ(CompletenessText(-0.1, Values({2, -1})), "-0.1");
  EXPECT_EQ(CompletenessText(0, Values({0, 0})), "0");
}

TEST(CompletenessTextTest, LargeErrorsAreShares) {
  EXPECT_THAT(CompletenessText(-1.5, Values({2, -1})),
              HasSubstr("-1.5, 50 % of the values: they do not add up"));
}

TEST(CompletenessTextTest, PicturesHaveNoValuesToCompareWith) {
  EXPECT_EQ(CompletenessText(3, Values({})), "3");
}

TEST(PrintHeaderPartTest, SaysWhatAPrecisionCosts) {
  v1::ExplanationHeader header;
  const auto printed = [&] {
    std::ostringstream out;
    Terminal terminal{out, out};
    PrintHeaderPart(terminal, header);
    return out.str();
  };
  v1::Arithmetic& arithmetic = *header.mutable_arithmetic();
  arithmetic.set_precision(v1::PRECISION_FLOAT32);
  arithmetic.set_operands("float32");
  EXPECT_THAT(printed(), Not(HasSubstr("precision")));
  arithmetic.set_precision(v1::PRECISION_CHECKPOINT);
  arithmetic.set_operands("bfloat16");
  arithmetic.set_logits_error(0.00417);
  EXPECT_THAT(printed(), HasSubstr("bfloat16 operands, logits off by 0.0042"));
}

TEST(TargetWordsTest, NameTokensThatAreCandidates) {
  google::protobuf::RepeatedPtrField<v1::Candidate> candidates;
  candidates.Add()->set_id(7);
  candidates[0].set_piece(" cat");
  v1::Target target;
  target.mutable_contrast()->set_id(7);
  target.mutable_contrast()->set_baseline_id(8);
  EXPECT_EQ(TargetWords(target, candidates),
            "logit of cat (7) minus that of 8");
  target.set_class_id(7);
  EXPECT_EQ(TargetWords(target, candidates), "logit of class cat (7)");
  EXPECT_EQ(TargetWords({}, candidates), "");
}

}  // namespace
}  // namespace limpid::cli
