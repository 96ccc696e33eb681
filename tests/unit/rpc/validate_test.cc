// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>

#include "tests/support/fake_engine.h"
#include "tests/support/in_process_server.h"

namespace limpid {
namespace {

using ::testing::ElementsAre;
using testing::FakeMethods;
using ::testing::IsEmpty;
using testing::TextRequest;
using ::testing::UnorderedElementsAre;

std::vector<std::string> FieldsOf(const std::vector<FieldViolation>& list) {
  std::vector<std::string> fields;
  for (const FieldViolation& v : list) fields.push_back(v.field);
  return fields;
}

// Fields that a change to a good request makes wrong.
std::vector<std::string> Wrong(
    const std::function<void(v1::ExplainRequest&)>& change) {
  v1::ExplainRequest request = TextRequest("abc");
  change(request);
  return FieldsOf(Validate(request, FakeMethods()).violations);
}

TEST(ValidateTest, DefaultsAreThoseOfTheProto) {
  const ValidatedRequest v = Validate(TextRequest("abc"), FakeMethods());
  EXPECT_TRUE(v.ToStatus().ok());
  EXPECT_EQ(v.model, "a");
  EXPECT_EQ(std::get<TextInput>(v.request.input).text, "abc");
  EXPECT_EQ(v.request.attention.kind, AttentionKind::kRow);
  EXPECT_FALSE(v.request.attention.reduction.has_value());
  EXPECT_EQ(v.request.points[0].position.kind, Position::Kind::kDefault);
  EXPECT_EQ(v.request.top_k, 5);
  EXPECT_FALSE(v.encode.floats);
  EXPECT_THAT(NamesOfSet(v.request.options), IsEmpty());
}

TEST(ValidateTest, EnumsArriveAsOurs) {
  v1::ExplainRequest request = TextRequest("abc");
  request.mutable_options()->set_rule(v1::INTEGRATION_RULE_MIDPOINT);
  request.mutable_options()->mutable_baseline()->set_token_id(4);
  request.mutable_attention()->set_kind(v1::ATTENTION_KIND_MATRIX);
  request.mutable_attention()->set_form(v1::ATTENTION_FORM_NO_GATE);
  request.mutable_attention()->set_channel_reduction(v1::CHANNEL_REDUCTION_ALL);
  request.mutable_attention()->add_channels(3);
  request.mutable_output()->set_encoding(v1::TENSOR_ENCODING_FLOATS);
  auto& point = *request.add_points();
  point.mutable_position()->set_index(2);
  point.mutable_target()->mutable_contrast()->set_id(1);
  const ValidatedRequest v = Validate(request, FakeMethods());
  EXPECT_TRUE(v.ToStatus().ok()) << v.ToStatus();
  EXPECT_EQ(v.request.options.rule, IntegrationRule::kMidpoint);
  EXPECT_EQ(v.request.options.baseline->token_id, 4);
  EXPECT_EQ(v.request.attention.kind, AttentionKind::kMatrix);
  EXPECT_EQ(v.request.attention.form, AttentionForm::kNoGate);
  EXPECT_THAT(v.request.attention.channels, ElementsAre(3));
  EXPECT_EQ(v.request.points[0].position.index, 2);
  EXPECT_EQ(v.request.points[0].target.kind, Target::Kind::kContrast);
  EXPECT_TRUE(v.encode.floats);
}

TEST(ValidateTest, WrongFieldsAreNamedByTheirPaths) {
  using R = v1::ExplainRequest;
  EXPECT_THAT(Wrong([](R& r) { r.clear_model(); }), ElementsAre("model"));
  EXPECT_THAT(Wrong([](R& r) { r.clear_input(); }), ElementsAre("input"));
  EXPECT_THAT(Wrong([](R& r) { r.mutable_input()->mutable_tokens(); }),
              ElementsAre("input.tokens.ids"));
  EXPECT_THAT(Wrong([](R& r) { r.set_method("x"); }), ElementsAre("method"));
  EXPECT_THAT(Wrong([](R& r) {
                auto& o = *r.mutable_options();
                o.set_steps(7);
                o.mutable_baseline();
                o.set_rule(v1::INTEGRATION_RULE_UNSPECIFIED);
                o.set_start_layer(-1);
                o.set_axis(static_cast<v1::GradientAxis>(9));
                o.set_norm(3);
                o.set_smoothing_samples(0);
                o.set_smoothing_noise(std::nan(""));
                o.set_occlusion_window(0);
                o.set_residual_weight(-1);
                o.set_gradient_reduction(v1::GRADIENT_REDUCTION_UNSPECIFIED);
              }),
              UnorderedElementsAre(
                  "options.steps", "options.baseline", "options.rule",
                  "options.start_layer", "options.axis", "options.norm",
                  "options.smoothing_samples", "options.smoothing_noise",
                  "options.occlusion_window", "options.residual_weight",
                  "options.gradient_reduction"));
  EXPECT_THAT(Wrong([](R& r) {
                auto& a = *r.mutable_attention();
                a.set_kind(v1::ATTENTION_KIND_UNSPECIFIED);
                a.set_form(static_cast<v1::AttentionForm>(77));
                for (const int layer : {1, -1, 1}) a.add_layers(layer);
                a.add_channels(0);
                a.set_downsample(65);
                a.set_top_k(0);
              }),
              UnorderedElementsAre("attention.kind", "attention.form",
                                   "attention.layers[1]", "attention.layers[2]",
                                   "attention.channels", "attention.downsample",
                                   "attention.top_k"));
  EXPECT_THAT(Wrong([](R& r) {
                auto& o = *r.mutable_output();
                o.set_top_k(101);
                o.set_attention_data_type(v1::DATA_TYPE_INT64);
                o.set_encoding(v1::TENSOR_ENCODING_UNSPECIFIED);
                r.set_precision(v1::PRECISION_UNSPECIFIED);
                auto& target = *r.add_points()->mutable_target();
                target.mutable_contrast()->set_id(3);
                target.mutable_contrast()->set_baseline_id(3);
              }),
              UnorderedElementsAre("output.top_k", "output.attention_data_type",
                                   "output.encoding", "precision",
                                   "points[0].target.contrast.baseline_id"));
}

TEST(ValidateTest, PointsFaithfulnessAndUnitsAreRead) {
  v1::ExplainRequest request = TextRequest("abc");
  request.add_points()->mutable_target()->mutable_next();
  request.add_points()->mutable_position()->set_index(4);
  request.mutable_faithfulness()->set_enabled(true);
  request.mutable_faithfulness()->set_random_orders(3);
  request.mutable_faithfulness()->mutable_replacement()->set_token_id(9);
  request.mutable_aggregation()->set_unit(v1::AGGREGATION_UNIT_SPAN);
  request.mutable_aggregation()->add_spans()->set_end(2);
  const ValidatedRequest v = Validate(request, FakeMethods());
  EXPECT_TRUE(v.ToStatus().ok()) << v.ToStatus();
  ASSERT_EQ(v.request.points.size(), 2u);
  EXPECT_EQ(v.request.points[0].target.kind, Target::Kind::kNext);
  EXPECT_EQ(v.request.points[1].position.index, 4);
  EXPECT_EQ(v.request.faithfulness->random_orders, 3);
  EXPECT_EQ(v.request.faithfulness->replacement.token_id, 9);
  EXPECT_EQ(v.request.aggregation.unit, AggregationRequest::Unit::kSpan);
  EXPECT_EQ(v.request.aggregation.spans.front().end, 2);
  using R = v1::ExplainRequest;
  EXPECT_THAT(Wrong([](R& r) {
                r.add_points();
                r.add_points()->mutable_position()->set_index(-1);
                r.mutable_faithfulness()->set_random_orders(65);
                r.mutable_faithfulness()->mutable_replacement();
                r.mutable_aggregation()->add_spans();
                r.mutable_aggregation()->add_regions();
              }),
              UnorderedElementsAre("points[1].position.index",
                                   "faithfulness.random_orders",
                                   "faithfulness.replacement",
                                   "aggregation.spans", "aggregation.regions"));
}

TEST(ValidateTest, PrecisionsAreRead) {
  const std::map<v1::Precision, Precision> expected = {
      {v1::PRECISION_FLOAT32, Precision::kFloat32},
      {v1::PRECISION_CHECKPOINT, Precision::kCheckpoint},
      {v1::PRECISION_FAST, Precision::kFast}};
  v1::ExplainRequest request = TextRequest("abc");
  EXPECT_EQ(Validate(request, FakeMethods()).request.precision,
            Precision::kFloat32);
  for (const auto& [sent, read] : expected) {
    request.set_precision(sent);
    const ValidatedRequest v = Validate(request, FakeMethods());
    EXPECT_TRUE(v.ToStatus().ok()) << v.ToStatus();
    EXPECT_EQ(v.request.precision, read);
  }
  EXPECT_THAT(Wrong([](v1::ExplainRequest& r) {
                r.set_precision(static_cast<v1::Precision>(4));
              }),
              ElementsAre("precision"));
}

TEST(ValidateTest, HeadsMeanTheFormStateUnlessAnotherIsGiven) {
  v1::ExplainRequest request = TextRequest("abc");
  v1::AttentionOptions& attention = *request.mutable_attention();
  attention.set_head_form(true);
  ValidatedRequest v = Validate(request, FakeMethods());
  EXPECT_TRUE(v.ToStatus().ok()) << v.ToStatus();
  EXPECT_TRUE(v.request.attention.head_form);
  EXPECT_EQ(v.request.attention.form, AttentionForm::kState);
  // The engine refuses what does not go together.
  attention.set_form(v1::ATTENTION_FORM_FULL);
  v = Validate(request, FakeMethods());
  EXPECT_EQ(v.request.attention.form, AttentionForm::kFull);
}

TEST(ValidateTest, PixelsAreChecked) {
  v1::ExplainRequest request = TextRequest("");
  v1::Tensor& pixels = *request.mutable_input()->mutable_pixels();
  const auto fields = [&] {
    return FieldsOf(Validate(request, FakeMethods()).violations);
  };
  EXPECT_THAT(fields(), ElementsAre("input.pixels.header.shape"));
  for (const int side : {3, 1, 2}) pixels.mutable_header()->add_shape(side);
  EXPECT_THAT(fields(), ElementsAre("input.pixels.data"));
  pixels.set_data(std::string(24, '\0'));
  EXPECT_THAT(fields(), IsEmpty());
  pixels.mutable_header()->set_crc32(1);
  EXPECT_THAT(fields(), ElementsAre("input.pixels.header.crc32"));
  pixels.mutable_header()->clear_crc32();
  pixels.set_data("\xFF\xFF\xFF\xFF" + std::string(20, '\0'));
  EXPECT_THAT(fields(), ElementsAre("input.pixels"));
}

TEST(ValidateTest, EngineFindingsJoinUnlessTheyAreOldNews) {
  v1::ExplainRequest request = TextRequest("");
  request.mutable_attention()->add_layers(-1);
  const ValidatedRequest v = Validate(request, FakeMethods());
  Violations engine;
  engine.Add("input.tokens.ids[0]", "of the stand-in");
  engine.Add("attention.layers[0]", "known already");
  engine.Add("options.steps", "not taken");
  EXPECT_THAT(
      FieldsOf(GetErrorDetails(MergeStatus(v, engine.ToStatus())).violations),
      UnorderedElementsAre("input.text", "attention.layers[0]",
                           "options.steps"));
  EXPECT_EQ(MergeStatus(v, absl::FailedPreconditionError("x")).code(),
            absl::StatusCode::kInvalidArgument);
  const ValidatedRequest good = Validate(TextRequest("a"), FakeMethods());
  EXPECT_EQ(MergeStatus(good, absl::FailedPreconditionError("x")).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(MergeStatus(good, absl::OkStatus()).ok());
}

}  // namespace
}  // namespace limpid
