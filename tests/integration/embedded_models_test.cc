// SPDX-License-Identifier: Apache-2.0
//
// The embedded models through the engine: tokens and logits as other people's
// implementations have them, and attributions that find the token which is
// known to matter.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

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
    auto model = engine_->Load(
        name, std::string(LIMPID_SOURCE_DIR) + "/models/" + name);
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
    EXPECT_EQ(reply.summary->predictions.front().id,
              expected.at("argmax_id").get<int64_t>());
  }
}

TEST_F(EmbeddedModelsTest, SentimentIsMadeByTheWordsThatCarryIt) {
  Load("sentiment-mamba");
  ExplainRequest request = TextRequest("A gorgeous, witty, seductive movie.");
  request.method = "integrated-gradients";
  request.target = {Target::Kind::kContrast, golden_.at("good_id"),
                    golden_.at("bad_id")};
  request.options.baseline = Baseline{Baseline::Kind::kMean, 0};
  const CollectingSink praise = Explain(request);
  EXPECT_LE(std::abs(*praise.summary->completeness_error), 0.01);
  EXPECT_EQ(praise.header->tokens[1].piece, " gorge");
  EXPECT_GT(praise.summary->attribution[1], 1);
  request.input = TextInput{"The plot is a boring, lifeless mess."};
  const CollectingSink blame = Explain(request);
  EXPECT_EQ(blame.header->tokens[4].piece, " boring");
  EXPECT_LT(blame.summary->attribution[4], -0.5);
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
      answered += reply.summary->predictions.front().id ==
                  expected.at("target_id").get<int64_t>();
      EXPECT_NEAR(reply.Floats("logits")[expected.at("target_id")],
                  expected.at("target_logit"),
                  golden_.at("logit_tolerance").get<double>());
      const auto& values = reply.summary->attribution;
      size_t top = 0;
      for (size_t i = 1; i + 1 < values.size(); ++i) {
        if (std::abs(values[i]) > std::abs(values[top])) top = i;
      }
      const auto truth =
          expected.at("truth_positions").get<std::set<size_t>>();
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

}  // namespace
}  // namespace limpid
