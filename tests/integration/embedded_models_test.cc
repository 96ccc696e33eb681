// SPDX-License-Identifier: Apache-2.0
//
// The embedded models through the engine: tokens and logits as other people's
// implementations have them, and attributions that find the token which is
// known to matter.
#include <gtest/gtest.h>

#include <numeric>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>

#include "server/explain/engine.h"
#include "tests/support/collecting_sink.h"

namespace limpid {
namespace {

using testing::CollectingSink;
using Json = nlohmann::json;

class EmbeddedModelsTest : public ::testing::Test {
 protected:
  EmbeddedModelsTest() {
    EngineOptions options;
    options.device = "cpu";
    engine_ = *Engine::Create(options);
  }

  void Load(const std::string& name) {
    auto model =
        engine_->Load(name, std::string(LIMPID_SOURCE_DIR) + "/models/" + name);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    std::ifstream file(std::string(LIMPID_TEST_DATA) + "/" + name +
                       "/cases.json");
    golden_ = Json::parse(file);
    ASSERT_FALSE(golden_.at("cases").empty());
  }

  CollectingSink Explain(const ExplainRequest& request) {
    CollectingSink sink;
    auto plan = engine_->MakePlan(request, model_);
    EXPECT_TRUE(plan.ok()) << plan.status();
    const absl::Status status = engine_->Run(**plan, sink, CancelToken());
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_LE(sink.summary->layers.front().reconstruction_error, 1e-4);
    return sink;
  }

  static ExplainRequest TextRequest(const std::string& text) {
    ExplainRequest request;
    request.input = TextInput{text};
    request.logits = true;
    return request;
  }

  void ExpectTokens(const CollectingSink& reply, const Json& expected) {
    std::vector<int64_t> ids;
    for (const ResultToken& token : reply.header->tokens) {
      ids.push_back(token.id);
    }
    EXPECT_EQ(ids, expected.at("ids").get<std::vector<int64_t>>())
        << expected.at("text");
  }

  std::unique_ptr<Engine> engine_;
  std::shared_ptr<const Model> model_;
  Json golden_;
};

TEST_F(EmbeddedModelsTest, NoneHoldsMoreThanWasReservedForIt) {
  const std::string folder = std::string(LIMPID_SOURCE_DIR) + "/models/";
  for (const char* name :
       {"recall-deltanet", "recall-gated-deltanet", "recall-gla",
        "recall-griffin", "recall-hgrn2", "recall-mamba", "recall-mamba2",
        "recall-mlstm", "recall-retnet", "recall-rwkv4", "recall-rwkv5",
        "recall-rwkv6", "recall-rwkv7", "sentiment-griffin", "sentiment-mamba",
        "sentiment-rwkv4", "shapes-vim"}) {
    const auto model = engine_->Load(name, folder + name);
    const auto reserved = engine_->WeightBytes(folder + name);
    ASSERT_TRUE(model.ok() && reserved.ok());
    EXPECT_LE((*model)->info().resident_bytes, *reserved) << name;
    EXPECT_GE(2 * (*model)->info().resident_bytes, *reserved) << name;
  }
}

TEST_F(EmbeddedModelsTest, SentimentAgreesWithTheReference) {
  Load("sentiment-mamba");
  const int64_t good = golden_.at("good_id"), bad = golden_.at("bad_id");
  const double tolerance = golden_.at("logit_tolerance");
  for (const Json& expected : golden_.at("cases")) {
    const CollectingSink reply = Explain(TextRequest(expected.at("text")));
    ExpectTokens(reply, expected);
    const auto logits = reply.Floats("logits");
    EXPECT_NEAR(logits[good], expected.at("good_logit"), tolerance);
    EXPECT_NEAR(logits[bad], expected.at("bad_logit"), tolerance);
    EXPECT_EQ(reply.summary->points[0].predictions.front().id,
              expected.at("argmax_id").get<int64_t>());
  }
}

TEST_F(EmbeddedModelsTest, SentimentIsMadeByTheWordsThatCarryIt) {
  Load("sentiment-mamba");
  ExplainRequest request = TextRequest("A gorgeous, witty, seductive movie.");
  request.method = "integrated-gradients";
  request.points[0].target = {Target::Kind::kContrast, golden_.at("good_id"),
                              golden_.at("bad_id")};
  request.options.baseline.emplace().kind = Baseline::Kind::kMean;
  const CollectingSink praise = Explain(request);
  EXPECT_LE(std::abs(*praise.summary->points[0].completeness_error), 0.01);
  EXPECT_EQ(praise.header->tokens[1].piece, " gorge");
  EXPECT_GT(praise.summary->points[0].attribution[1], 1);
  request.input = TextInput{"The plot is a boring, lifeless mess."};
  const CollectingSink blame = Explain(request);
  EXPECT_EQ(blame.header->tokens[4].piece, " boring");
  EXPECT_LT(blame.summary->points[0].attribution[4], -0.5);
}

TEST_F(EmbeddedModelsTest, WordsAreSumsOfTheirTokens) {
  Load("sentiment-mamba");
  ExplainRequest request =
      TextRequest("  A gorgeous,\n\twitty  movie\xE2\x80\x94yes. ");
  request.aggregation.unit = AggregationRequest::Unit::kWord;
  const CollectingSink reply = Explain(request);
  std::vector<std::string> words;
  size_t next = 0;
  for (const ResultUnit& unit : reply.summary->units) {
    words.push_back(unit.text);
    // No token is left out or counted twice.
    EXPECT_EQ(unit.begin, next);
    next = unit.end;
  }
  EXPECT_EQ(next, reply.header->tokens.size());
  EXPECT_EQ(words, (std::vector<std::string>{"A", "gorgeous,", "witty",
                                             "movie\xE2\x80\x94yes."}));
  const std::vector<float>& values = reply.summary->points[0].attribution;
  const std::vector<float>& sums = reply.summary->points[0].units;
  EXPECT_NEAR(std::accumulate(values.begin(), values.end(), 0.0),
              std::accumulate(sums.begin(), sums.end(), 0.0), 1e-5);
}

// The better the order, the sooner the probability falls and rises.
TEST_F(EmbeddedModelsTest, FaithfulCurvesBeatRandomOrders) {
  Load("sentiment-mamba");
  ExplainRequest request = TextRequest("A gorgeous, witty, seductive movie.");
  request.method = "occlusion";
  request.points[0].target = {Target::Kind::kContrast, golden_.at("good_id"),
                              golden_.at("bad_id")};
  request.faithfulness.emplace();
  const CollectingSink reply = Explain(request);
  const Faithfulness& measured = *reply.summary->points[0].faithfulness;
  EXPECT_LT(measured.deletion.area, measured.deletion.random_area);
  EXPECT_GT(measured.insertion.area, measured.insertion.random_area);
}

// The token that must be looked at is known: the queried pair's value or key.
TEST_F(EmbeddedModelsTest, RecallAttributionsFindTheQueriedPair) {
  Load("recall-mamba");
  double best = 0;
  for (const char* method :
       {"raw-attention", "input-x-gradient", "integrated-gradients"}) {
    int64_t right = 0, answered = 0;
    for (const Json& expected : golden_.at("cases")) {
      ExplainRequest request = TextRequest(expected.at("text"));
      request.method = method;
      const CollectingSink reply = Explain(request);
      ExpectTokens(reply, expected);
      answered += reply.summary->points[0].predictions.front().id ==
                  expected.at("target_id").get<int64_t>();
      EXPECT_NEAR(reply.Floats("logits")[expected.at("target_id")],
                  expected.at("target_logit"),
                  golden_.at("logit_tolerance").get<double>());
      const auto& values = reply.summary->points[0].attribution;
      size_t top = 0;
      for (size_t i = 1; i + 1 < values.size(); ++i) {
        if (std::abs(values[i]) > std::abs(values[top])) top = i;
      }
      const auto truth = expected.at("truth_positions").get<std::set<size_t>>();
      right += static_cast<int64_t>(truth.count(top));
    }
    const double count = static_cast<double>(golden_.at("cases").size());
    EXPECT_GE(answered / count, 0.99);
    best = std::max(best, right / count);
    std::printf("figure: recall-mamba, %s: right token on top in %.1f %%\n",
                method, 100 * right / count);
  }
  EXPECT_GE(best, 0.9);
}

// Key-value recall made up here: a text lists pairs of a letter and a digit,
// all distinct, and ends with one of the letters. The answer is that letter's
// digit; the tokens that matter are the queried pair's.
struct RecallCase {
  std::string text;
  char answer;
  std::set<size_t> truth;
};

RecallCase MakeRecallCase(std::mt19937& random, size_t num_pairs) {
  std::string letters = "abcdefghijklmnopqrstuvwxyz", digits = "0123456789";
  std::shuffle(letters.begin(), letters.end(), random);
  std::shuffle(digits.begin(), digits.end(), random);
  RecallCase made;
  for (size_t i = 0; i < num_pairs; ++i) {
    made.text += letters[i];
    made.text += digits[i];
  }
  const size_t asked = random() % num_pairs;
  made.text += letters[asked];
  made.answer = digits[asked];
  made.truth = {2 * asked, 2 * asked + 1};
  return made;
}

class RecallModelsTest : public EmbeddedModelsTest,
                         public ::testing::WithParamInterface<std::string> {};

TEST_P(RecallModelsTest, AnswersAndLooksAtTheQueriedPair) {
  auto model = engine_->Load(
      GetParam(), std::string(LIMPID_SOURCE_DIR) + "/models/" + GetParam());
  ASSERT_TRUE(model.ok()) << model.status();
  model_ = *std::move(model);
  constexpr int kCases = 100;
  double best = 0;
  for (const char* method :
       {"raw-attention", "input-x-gradient", "integrated-gradients"}) {
    std::mt19937 random(5);
    int right = 0, answered = 0;
    for (int i = 0; i < kCases; ++i) {
      const RecallCase made = MakeRecallCase(random, 4 + i % 5);
      ExplainRequest request = TextRequest(made.text);
      request.method = method;
      const CollectingSink reply = Explain(request);
      answered += reply.summary->points[0].predictions.front().piece ==
                  std::string(1, made.answer);
      const auto& values = reply.summary->points[0].attribution;
      ASSERT_EQ(values.size(), made.text.size());
      size_t top = 0;
      for (size_t t = 1; t + 1 < values.size(); ++t) {
        if (std::abs(values[t]) > std::abs(values[top])) top = t;
      }
      right += static_cast<int>(made.truth.count(top));
    }
    EXPECT_GE(answered, 99);
    best = std::max(best, right / static_cast<double>(kCases));
    std::printf("figure: %s, %s: right token on top in %d %%\n",
                GetParam().c_str(), method, right);
  }
  EXPECT_GE(best, 0.9);
}

std::string FamilyName(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param.substr(std::strlen("recall-"));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    Models, RecallModelsTest,
    ::testing::Values("recall-mamba", "recall-mamba2", "recall-griffin",
                      "recall-rwkv4", "recall-rwkv5", "recall-rwkv6",
                      "recall-rwkv7", "recall-gla", "recall-retnet",
                      "recall-hgrn2", "recall-deltanet",
                      "recall-gated-deltanet", "recall-mlstm"),
    FamilyName);

// Families whose golden checkpoints are few or none: logits of the trained
// weights by a second implementation, which the file names.
class RecallLogitsTest : public EmbeddedModelsTest,
                         public ::testing::WithParamInterface<std::string> {};

TEST_P(RecallLogitsTest, AgreeWithTheSource) {
  Load(GetParam());
  for (const Json& expected : golden_.at("cases")) {
    const CollectingSink reply = Explain(TextRequest(expected.at("text")));
    ExpectTokens(reply, expected);
    EXPECT_NEAR(reply.Floats("logits")[expected.at("target_id")],
                expected.at("target_logit"),
                golden_.at("logit_tolerance").get<double>());
    EXPECT_EQ(reply.summary->points[0].predictions.front().id,
              expected.at("argmax_id").get<int64_t>());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RecallLogitsTest,
                         ::testing::Values("recall-gla", "recall-retnet",
                                           "recall-hgrn2", "recall-deltanet",
                                           "recall-gated-deltanet",
                                           "recall-mlstm"),
                         FamilyName);

// From the blurred picture, where the path begins unless somebody says
// otherwise, the sum agrees with the difference of the scores; from zero
// embeddings it does not (tests/conformance/integration_path_test.cc says why).
TEST_F(EmbeddedModelsTest, IntegratedGradientsOfPicturesAddUpByDefault) {
  const std::string folder =
      std::string(LIMPID_SOURCE_DIR) + "/models/shapes-vim";
  model_ = *engine_->Load("shapes-vim", folder);
  for (const char* sample : {"cat-face", "guitar", "lion-face"}) {
    std::ifstream file(folder + "/samples/" + sample + ".png",
                       std::ios::binary);
    ExplainRequest request;
    request.input = ImageInput{{std::istreambuf_iterator<char>(file), {}}};
    request.method = "integrated-gradients";
    const auto error = [&] {
      const CollectingSink reply = Explain(request);
      double sum = 0;
      for (const float value : reply.summary->points[0].attribution) {
        sum += std::abs(value);
      }
      return std::abs(*reply.summary->points[0].completeness_error) / sum;
    };
    const double by_default = error();
    request.options.baseline.emplace().kind = Baseline::Kind::kZero;
    const double from_zero = error();
    std::printf(
        "figure: %s: completeness error, relative: %.1e, from zero "
        "%.1e\n",
        sample, by_default, from_zero);
    EXPECT_LT(by_default, 1e-3);
    EXPECT_GT(from_zero, 10 * by_default);
  }
}

class SentimentModelsTest : public EmbeddedModelsTest,
                            public ::testing::WithParamInterface<std::string> {
};

// Sentences that are in no training data, with the label that one would want.
TEST_P(SentimentModelsTest, JudgesPlainSentences) {
  auto model = engine_->Load(
      GetParam(), std::string(LIMPID_SOURCE_DIR) + "/models/" + GetParam());
  ASSERT_TRUE(model.ok()) << model.status();
  model_ = *std::move(model);
  const std::map<std::string, std::string> wanted = {
      {"One of the best films of the year, moving and beautifully acted.",
       "<|good|>"},
      {"I love this camera, the pictures are wonderful!", "<|good|>"},
      {"A boring, lifeless and predictable mess.", "<|bad|>"},
      {"The plot makes no sense and the jokes fall flat.", "<|bad|>"}};
  for (const auto& [text, label] : wanted) {
    const CollectingSink reply = Explain(TextRequest(text));
    EXPECT_EQ(reply.summary->points[0].predictions.front().piece, label)
        << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SentimentModelsTest,
                         ::testing::Values("sentiment-mamba", "sentiment-rwkv4",
                                           "sentiment-griffin"),
                         [](const ::testing::TestParamInfo<std::string>& info) {
                           return info.param.substr(std::strlen("sentiment-"));
                         });

}  // namespace
}  // namespace limpid
