// SPDX-License-Identifier: Apache-2.0
//
// Explanations on common units, and how far they agree.
#include "client/cli/comparison.h"

#include <cmath>
#include <vector>

#include "client/decode.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_explanation_service.h"

namespace limpid::cli {
namespace {

using ::testing::ElementsAre;

Explanation Decoded(const v1::ExplainResponse& response) {
  auto explanation = DecodeResponse(response);
  EXPECT_TRUE(explanation.ok()) << explanation.status();
  return *std::move(explanation);
}

v1::ExplainResponse WithWords(v1::ExplainResponse response,
                              const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    auto& unit = *response.mutable_summary()->add_units();
    unit.set_text(word);
    unit.set_value(static_cast<float>(word.size()));
  }
  return response;
}

TEST(ComparisonTest, TheSameTokensAreComparedByTokens) {
  const std::vector<Explanation> both = {Decoded(testing::MakeResponse()),
                                         Decoded(testing::MakeResponse())};
  const auto comparison = Compare(both);
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  EXPECT_EQ(comparison->unit, "token");
  EXPECT_EQ(comparison->labels.size(), 3u);
  EXPECT_EQ(comparison->values[0], comparison->values[1]);
}

TEST(ComparisonTest, OtherTokensAreComparedByWords) {
  v1::ExplainResponse other = testing::MakeResponse();
  other.mutable_header()->mutable_tokens(0)->set_piece_bytes("An");
  const std::vector<std::string> words = {"A", "good", "film"};
  const std::vector<Explanation> both = {
      Decoded(WithWords(testing::MakeResponse(), words)),
      Decoded(WithWords(other, words))};
  const auto comparison = Compare(both);
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  EXPECT_EQ(comparison->unit, "word");
  EXPECT_THAT(comparison->values[1], ElementsAre(1, 4, 4));
  const std::vector<Explanation> none = {Decoded(testing::MakeResponse()),
                                         Decoded(other)};
  EXPECT_FALSE(Compare(none).ok());
}

TEST(ComparisonTest, RankCorrelation) {
  const std::vector<float> rising = {1, 2, 3, 10}, falling = {4, 3, 2, 1};
  EXPECT_DOUBLE_EQ(RankCorrelation(rising, rising), 1);
  EXPECT_DOUBLE_EQ(RankCorrelation(rising, falling), -1);
  // Ties share their mean rank: ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3.
  const std::vector<float> tied = {1, 2, 2, 3};
  EXPECT_NEAR(RankCorrelation(rising, tied), 4.5 / std::sqrt(5 * 4.5), 1e-12);
  const std::vector<float> constant = {1, 1, 1, 1}, shorter = {1, 2};
  EXPECT_TRUE(std::isnan(RankCorrelation(rising, constant)));
  EXPECT_TRUE(std::isnan(RankCorrelation(rising, shorter)));
}

TEST(ComparisonTest, TopOverlapCountsByAbsoluteValue) {
  const std::vector<float> a = {-9, 1, 8, 0}, b = {7, 0, 0.1f, 6};
  EXPECT_EQ(TopOverlap(a, b, 2), 1u);
  EXPECT_EQ(TopOverlap(a, b, 4), 4u);
  EXPECT_EQ(TopOverlap(a, b, 9), 4u);
}

}  // namespace
}  // namespace limpid::cli
