// SPDX-License-Identifier: Apache-2.0
//
// What the engine refuses before it computes, and how it says so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "server/attribution/method_spec.h"
#include "tests/unit/explain/engine_testing.h"

namespace limpid {
namespace {

using testing::CheckpointFolder;
using ::testing::Contains;
using testing::EngineTest;

TEST_F(EngineTest, AllWrongFieldsAreNamedAtOnce) {
  request_.input = TokenInput{{1, 37, -1}};
  request_.method = "wishful-thinking";
  request_.points[0].position = {Position::Kind::kIndex, 3};
  request_.points[0].target = {Target::Kind::kToken, 99, 0};
  request_.attention.layers = {0, 2, 0};
  request_.attention.channels = {40};
  EXPECT_EQ(ViolatedFields(request_),
            (std::set<std::string>{
                "input.tokens.ids[1]", "input.tokens.ids[2]", "method",
                "points[0].position.index", "points[0].target.token_id",
                "attention.layers[1]", "attention.layers[2]",
                "attention.channels[0]", "attention.channels"}));
}

TEST_F(EngineTest, OptionsAreCheckedByMethodAndRange) {
  request_.options.steps = 64;
  EXPECT_THAT(ViolatedFields(request_), Contains("options.steps"));
  request_.method = "integrated-gradients";
  request_.options.steps = 7;
  request_.options.baseline.emplace().kind = Baseline::Kind::kBlur;
  request_.options.norm = 1;
  EXPECT_EQ(ViolatedFields(request_),
            (std::set<std::string>{"options.steps", "options.baseline.blur",
                                   "options.norm"}));
  request_.options = {};
  request_.method = "raw-attention";
  request_.options.start_layer = 2;
  EXPECT_EQ(ViolatedFields(request_),
            (std::set<std::string>{"options.start_layer"}));
}

TEST_F(EngineTest, StepsFarFromAnySenseAreRefused) {
  request_.method = "integrated-gradients";
  for (const int64_t steps : {-1, 0, 1, 7, 1025, 1'000'000'000}) {
    request_.options.steps = steps;
    EXPECT_EQ(ViolatedFields(request_),
              (std::set<std::string>{"options.steps"}))
        << steps;
  }
  for (const int64_t steps : {8, 1024}) {
    request_.options.steps = steps;
    EXPECT_TRUE(engine_->MakePlan(request_, model_).ok()) << steps;
  }
}

TEST_F(EngineTest, BaselinesOfTokensHaveTheInputsLength) {
  Baseline baseline;
  baseline.kind = Baseline::Kind::kTokens;
  for (const size_t count : {0, 12, 14}) {
    baseline.token_ids.assign(count, 1);
    for (const char* method : {"integrated-gradients", "occlusion"}) {
      request_.method = method;
      request_.options.baseline = baseline;
      EXPECT_EQ(ViolatedFields(request_),
                (std::set<std::string>{"options.baseline.tokens.ids"}))
          << count;
    }
    request_.options.baseline.reset();
    request_.faithfulness.emplace().replacement = baseline;
    EXPECT_EQ(ViolatedFields(request_),
              (std::set<std::string>{"faithfulness.replacement.tokens.ids"}));
    request_.faithfulness.reset();
  }
  baseline.token_ids.assign(13, 1);
  baseline.token_ids[4] = 37;
  request_.options.baseline = baseline;
  EXPECT_EQ(ViolatedFields(request_),
            (std::set<std::string>{"options.baseline.tokens.ids[4]"}));
}

// Every option of every method: taken, or refused by its name.
TEST_F(EngineTest, OptionsThatAMethodDoesNotTakeAreNamed) {
  const std::vector<std::pair<std::string, void (*)(MethodOptions&)>> all = {
      {"steps", [](MethodOptions& o) { o.steps = 8; }},
      {"baseline", [](MethodOptions& o) { o.baseline.emplace(); }},
      {"rule", [](MethodOptions& o) { o.rule = IntegrationRule::kCubic; }},
      {"start_layer", [](MethodOptions& o) { o.start_layer = 0; }},
      {"axis", [](MethodOptions& o) { o.axis = GradientAxis::kSource; }},
      {"compat", [](MethodOptions& o) { o.compat = Compatibility::kNone; }},
      {"norm", [](MethodOptions& o) { o.norm = 1; }},
      {"special_tokens", [](MethodOptions& o) { o.special_tokens = true; }},
      {"smoothing_samples", [](MethodOptions& o) { o.smoothing_samples = 2; }},
      {"smoothing_noise", [](MethodOptions& o) { o.smoothing_noise = 0.1; }},
      {"seed", [](MethodOptions& o) { o.seed = 1; }},
      {"occlusion_window", [](MethodOptions& o) { o.occlusion_window = 1; }},
      {"residual_weight", [](MethodOptions& o) { o.residual_weight = 1; }},
      {"gradient_reduction", [](MethodOptions& o) {
         o.gradient_reduction = GradientReduction::kMean;
       }}};
  int refused = 0;
  for (const MethodSpec& method : ListedMethods()) {
    request_.method = method.name;
    for (const auto& [name, set] : all) {
      request_.options = {};
      set(request_.options);
      const bool taken =
          std::any_of(method.options.begin(), method.options.end(),
                      [&, &name = name](const OptionSpec& option) {
                        return option.name == name;
                      });
      if (taken) {
        EXPECT_TRUE(engine_->MakePlan(request_, model_).ok())
            << method.name << " " << name;
      } else {
        EXPECT_EQ(ViolatedFields(request_),
                  (std::set<std::string>{"options." + name}))
            << method.name;
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 50);
}

TEST_F(EngineTest, EmptyAndLongInputsAreRefused) {
  request_.input = TokenInput{};
  EXPECT_THAT(ViolatedFields(request_), Contains("input.tokens.ids"));
  request_.input = TokenInput{std::vector<int64_t>(101, 1)};
  EXPECT_THAT(ViolatedFields(request_), Contains("input.tokens.ids"));
  request_.input = TokenInput{std::vector<int64_t>(100, 1)};
  EXPECT_TRUE(engine_->MakePlan(request_, model_).ok());
}

TEST_F(EngineTest, ContrastOfATokenWithItselfIsRefused) {
  request_.points[0].target = {Target::Kind::kContrast, 5, 5};
  EXPECT_EQ(ViolatedFields(request_),
            (std::set<std::string>{"points[0].target.contrast.baseline_id"}));
}

TEST_F(EngineTest, WhatTheModelDoesNotOfferIsAPrecondition) {
  const auto code = absl::StatusCode::kFailedPrecondition;
  ExplainRequest request = request_;
  request.input = TextInput{"hello"};
  EXPECT_EQ(Reason(request, code), "TOKENIZER_MISSING");
  request.input = ImageInput{"png"};
  EXPECT_EQ(Reason(request, code), "WRONG_MODALITY");
  request = request_;
  request.attention.form = AttentionForm::kNoNorm;
  EXPECT_EQ(Reason(request, code), "FORM_NOT_SUPPORTED_BY_ARCHITECTURE");
}

TEST_F(EngineTest, RequestsBeyondTheMemoryLimitAreRefusedBeforeWork) {
  EngineOptions options;
  options.device = "cpu";
  options.max_request_memory_bytes = 100000;
  auto engine = *Engine::Create(options);
  auto model = *engine->Load("tied", CheckpointFolder("mamba-tied"));
  request_.attention.kind = AttentionKind::kMatrix;
  request_.attention.reduction = ChannelReduction::kAll;
  request_.input = TokenInput{std::vector<int64_t>(60, 1)};
  const absl::Status status = engine->MakePlan(request_, model).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetails(status).reason, "REQUEST_TOO_LARGE");
}

TEST_F(EngineTest, WhatIsWrongWithPointsIsSaid) {
  const auto length =
      static_cast<int64_t>(std::get<TokenInput>(request_.input).ids.size());
  request_.points = {{{Position::Kind::kIndex, length}, {}},
                     {{}, {Target::Kind::kNext}},
                     {{}, {Target::Kind::kContrast, 5, 5}}};
  EXPECT_EQ(ViolatedFields(request_),
            (std::set<std::string>{"points[0].position.index",
                                   "points[1].target.next",
                                   "points[2].target.contrast.baseline_id"}));
  request_.points.assign(257, Point());
  EXPECT_EQ(ViolatedFields(request_), (std::set<std::string>{"points"}));
}

}  // namespace
}  // namespace limpid
