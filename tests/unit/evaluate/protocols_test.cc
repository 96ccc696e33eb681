// SPDX-License-Identifier: Apache-2.0
//
// Protocols on models made up for the test, whose right scores can be worked
// out by hand.
#include <cmath>
#include <map>

#include "client/evaluate/grounding.h"
#include "client/evaluate/lexicon.h"
#include "client/evaluate/perturbation.h"
#include "client/evaluate/picture_protocols.h"
#include "client/evaluate/text_curves.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace limpid::evaluate {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

// One token per character; ids are the characters.
Reading ReadingOf(const std::string& text) {
  Reading reading;
  for (size_t i = 0; i < text.size(); ++i) {
    v1::Token token;
    token.set_id(text[i]);
    token.set_begin(static_cast<int32_t>(i));
    token.set_end(static_cast<int32_t>(i + 1));
    reading.tokens.push_back(token);
  }
  return reading;
}

// Class 0 has the logit 2 for every '+' among the tokens, class 1 none.
absl::StatusOr<std::vector<float>> CountPluses(const v1::Input& input) {
  float sum = 0;
  for (const int64_t id : input.tokens().ids()) sum += id == '+' ? 2 : 0;
  return std::vector<float>{sum, 0.5F};
}

TextOptions Options() {
  TextOptions options;
  options.sentences = {{"a+bcdefghi", 0}};
  options.classes = {0, 1};
  options.replacement = '_';
  return options;
}

constexpr float kPlusOnTop[] = {0, 9, 0, 0, 0, 0, 0, 0, 0, 0};
constexpr float kPlusLast[] = {5, 1, 5, 5, 5, 5, 5, 5, 5, 5};

TEST(TextPerturbationTest, TheOnlyRelevantTokenDecides) {
  const auto protocol = MakeTextPerturbation(Options());
  Reading reading = ReadingOf("a+bcdefghi");
  reading.logits = {2, 0.5F};
  const auto top = protocol->Judge(0, reading, kPlusOnTop, 0, CountPluses);
  ASSERT_TRUE(top.ok());
  // Positive: gone from 10 % on. Negative: there until 90 % are removed.
  EXPECT_EQ((*top)[0], 0);
  EXPECT_NEAR((*top)[1], 1, 1e-12);
  EXPECT_EQ(top->size(), 4 + 2 * 9u);
  const auto last = protocol->Judge(0, reading, kPlusLast, 0, CountPluses);
  ASSERT_TRUE(last.ok());
  EXPECT_NEAR((*last)[0], 1, 1e-12);
  EXPECT_EQ((*last)[1], 0);
}

TEST(TextPerturbationTest, TwoClassesAreExplainedByTheirDifference) {
  const auto protocol = MakeTextPerturbation(Options());
  Reading reading = ReadingOf("a");
  reading.logits = {0, 3};
  const v1::Target target = protocol->target(0, reading);
  EXPECT_EQ(target.contrast().id(), 1);
  EXPECT_EQ(target.contrast().baseline_id(), 0);
  EXPECT_EQ(ClassTarget({}, 7).token_id(), 7);
  EXPECT_FALSE(ClassLogits({1, 2}, {0, 2}).ok());
  EXPECT_FALSE(ClassLogits({1, 2}, {-1, 0}).ok());
}

TEST(PerturbationTest, AreasAreThoseOfTheCurve) {
  // Stays the same until 40 % are removed, in both directions.
  const std::vector<size_t> order = {3, 1, 4, 0, 2, 9, 8, 7, 6, 5};
  const auto scores = JudgePerturbation(
      order, [](const auto&, size_t removed) -> absl::StatusOr<bool> {
        return removed <= 4;
      });
  ASSERT_TRUE(scores.ok());
  EXPECT_NEAR((*scores)[0], (0.3 + 0.05) / 0.8, 1e-12);
  EXPECT_NEAR((*scores)[2], 4.0 / 9, 1e-12);
  const Curve curve = PerturbationCurves()[1];
  EXPECT_EQ(curve.first_score + curve.x.size(), scores->size());
}

TEST(ActivationTest, RevealsByDescendingRelevance) {
  const auto protocol = MakeActivation(Options());
  ASSERT_TRUE(protocol.ok());
  const Reading reading = ReadingOf("a+bcdefghi");
  const double off = 1 / (1 + std::exp(0.5)), on = 1 / (1 + std::exp(-1.5));
  const auto top = (*protocol)->Judge(0, reading, kPlusOnTop, 0, CountPluses);
  ASSERT_TRUE(top.ok());
  EXPECT_NEAR((*top)[0], 0.05 * (off + on) + 0.9 * on, 1e-6);
  const auto last = (*protocol)->Judge(0, reading, kPlusLast, 0, CountPluses);
  ASSERT_TRUE(last.ok());
  EXPECT_NEAR((*last)[0], 0.9 * off + 0.05 * (off + on), 1e-6);
}

TEST(ActivationTest, NeedsLabelsAmongTheClasses) {
  TextOptions options = Options();
  options.sentences[0].label = 5;
  EXPECT_FALSE(MakeActivation(options).ok());
  options.sentences[0].label.reset();
  EXPECT_FALSE(MakeActivation(options).ok());
}

TEST(PruningTest, ReplacesByAscendingMagnitude) {
  const auto protocol = MakePruning(Options());
  Reading reading = ReadingOf("a+bcdefghi");
  reading.logits = {2, 0.5F};
  // The sign does not count: -9 is the largest.
  const float negative[] = {0, -9, 0, 0, 0, 0, 0, 0, 0, 0};
  const auto kept = protocol->Judge(0, reading, negative, 0, CountPluses);
  ASSERT_TRUE(kept.ok());
  EXPECT_NEAR((*kept)[0], 0.05 * 4, 1e-6);
  const auto lost = protocol->Judge(0, reading, kPlusLast, 0, CountPluses);
  ASSERT_TRUE(lost.ok());
  EXPECT_NEAR((*lost)[0], 0.95 * 4, 1e-6);
}

TEST(GroundingTest, SequencesEndWithAKeyThatTheyHold) {
  GroundingOptions options;
  options.least_pairs = 4;
  options.most_pairs = 6;
  std::map<size_t, int> lengths;
  for (size_t i = 0; i < 300; ++i) {
    const RecallSequence sequence = MakeRecallSequence(options, i);
    EXPECT_EQ(sequence.text, MakeRecallSequence(options, i).text);
    ++lengths[sequence.text.size()];
    EXPECT_EQ(sequence.text.find(sequence.text.back()), sequence.key_at);
    EXPECT_TRUE(isdigit(sequence.text[sequence.key_at + 1]));
  }
  EXPECT_EQ(lengths.size(), 3u);
  EXPECT_TRUE(lengths.contains(9) && lengths.contains(11) &&
              lengths.contains(13));
}

TEST(GroundingTest, KeyOrValueOnTopIsRightAndTheQueryIsNoCandidate) {
  GroundingOptions options;
  options.items = 1;
  const auto protocol = MakeGrounding(options);
  const RecallSequence sequence = MakeRecallSequence(options, 0);
  const Reading reading = ReadingOf(sequence.text);
  std::vector<float> map(sequence.text.size(), 0.1F);
  map.back() = 99;
  map[sequence.key_at + 1] = -3;
  auto scores = protocol->Judge(0, reading, map, 0, {});
  ASSERT_TRUE(scores.ok());
  EXPECT_THAT(*scores, ElementsAre(1, 1));
  map[sequence.key_at == 0 ? 2 : 0] = 4;
  scores = protocol->Judge(0, reading, map, 0, {});
  EXPECT_THAT(*scores, ElementsAre(0, 2));
  EXPECT_FALSE(protocol->Judge(0, ReadingOf("abc"), map, 0, {}).ok());
}

TEST(LexiconTest, WordsAreSumsOfTheirTokens) {
  // Tokens as byte-level BPE makes them: the space goes with what follows.
  Reading reading;
  for (const auto& [begin, end] :
       {std::pair{0, 3}, {3, 4}, {4, 7}, {7, 8}, {8, 12}, {12, 14}}) {
    v1::Token token;
    token.set_begin(begin);
    token.set_end(end);
    reading.tokens.push_back(token);
  }
  const std::string text = "Bad, my film .";
  const std::vector<Word> words = SplitWords(text, reading.tokens);
  ASSERT_EQ(words.size(), 3u);
  EXPECT_EQ(words[0].text, "bad");
  EXPECT_THAT(words[0].tokens, ElementsAre(0, 1));
  EXPECT_EQ(words[1].text, "my");
  EXPECT_THAT(words[1].tokens, ElementsAre(2));
  EXPECT_THAT(words[2].tokens, ElementsAre(3, 4));
}

TEST(LexiconTest, RanksWordsAgainstTheirRatings) {
  TextOptions options;
  options.classes = {1, 2};
  options.sentences = {{"bad ok fine", std::nullopt}, {"no word", 1}};
  const auto protocol = MakeLexicon(options, {{"bad", -3.0}, {"fine", 1.0}});
  ASSERT_TRUE(protocol.ok());
  EXPECT_EQ((*protocol)->num_items(), 1u);
  // b a d _ o k _ f i n e
  const float map[] = {-1, -1, -1, 0, 0.1F, 0, 0, 0.5F, 0.5F, 0, 0};
  const auto scores =
      (*protocol)->Judge(0, ReadingOf("bad ok fine"), map, 0, {});
  ASSERT_TRUE(scores.ok());
  EXPECT_THAT(*scores,
              ElementsAre(DoubleNear(1, 1e-12), 1, DoubleNear(2.0 / 3, 1e-12),
                          DoubleNear(1, 1e-12)));
  options.classes = {1};
  EXPECT_FALSE(MakeLexicon(options, {{"bad", -3.0}}).ok());
}

TEST(SegmentationTest, OverlapOfAMaskByHand) {
  // Mean 2: only the 4 and the 3 are object; one of them rightly.
  const float map[] = {4, 1, 3, 0};
  const uint8_t mask[] = {1, 1, 0, 0};
  const std::vector<double> scores = JudgeMask(map, mask);
  EXPECT_THAT(std::vector<double>(scores.begin(), scores.begin() + 6),
              ElementsAre(2, 4, 1, 3, 1, 3));
  EXPECT_DOUBLE_EQ(scores[7], 0.5);
  EXPECT_DOUBLE_EQ(scores[8], 0.75);
  // Planes (1, 1/4, 3/4, 0) and its complement: ordered 1 1 | 3/4 3/4 |
  // 1/4 1/4 | 0 0 with hits 2, 0, 2, 0.
  EXPECT_DOUBLE_EQ(scores[6], (2 * 1.0 + 2 * 4.0 / 6) / 4);
}

TEST(SegmentationTest, MeanIouComesFromSums) {
  const auto protocol = MakeSegmentation({Picture{}});
  const std::vector<double> sums = {6, 8, 1, 3, 4, 6, 1, 1, 1};
  for (const Figure& figure : protocol->figures()) {
    if (figure.key == "mean_iou") {
      EXPECT_DOUBLE_EQ(figure.value(sums, 2), 50 * (1.0 / 3 + 4.0 / 6));
    }
    if (figure.key == "pixel_accuracy") {
      EXPECT_DOUBLE_EQ(figure.value(sums, 2), 75);
    }
    if (figure.key == "f1") {
      EXPECT_DOUBLE_EQ(figure.value(sums, 2), 50);
    }
  }
}

TEST(PicturePerturbationTest, BlackensTheMostRelevantPixelsFirst) {
  Picture picture;
  picture.image = {4, 4, std::vector<uint8_t>(48, 200)};
  picture.image.pixels[3 * 5] = 201;  // the pixel that the model looks at
  const auto protocol = MakePicturePerturbation({picture});
  Reading reading;
  reading.grid_rows = reading.grid_columns = 4;
  reading.logits = {1, 0};
  std::vector<float> map(16, 0.5F);
  map[5] = 7;
  int calls = 0;
  const auto scores = protocol->Judge(
      0, reading, map, 0,
      [&](const v1::Input& input) -> absl::StatusOr<std::vector<float>> {
        ++calls;
        const absl::StatusOr<RgbImage> image = DecodeImage(input.image());
        if (!image.ok()) return image.status();
        int black = 0;
        for (size_t i = 0; i < image->pixels.size(); i += 3) {
          black += image->pixels[i] == 0 ? 1 : 0;
        }
        const int expected[] = {2, 4, 5, 7, 8, 10, 12, 13, 15};
        EXPECT_EQ(black, expected[(calls - 1) % 9]);
        const bool there = image->pixels[3 * 5] == 201;
        return std::vector<float>{there ? 1.0F : 0.0F, there ? 0.0F : 1.0F};
      });
  ASSERT_TRUE(scores.ok()) << scores.status();
  EXPECT_EQ(calls, 18);
  EXPECT_EQ((*scores)[0], 0);
  EXPECT_NEAR((*scores)[1], 1, 1e-12);
}

}  // namespace
}  // namespace limpid::evaluate
