// SPDX-License-Identifier: Apache-2.0
//
// Options of methods and of the attention that is returned.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "server/rpc/validate_fields.h"

namespace limpid::validate {
namespace {

constexpr int kMaxShown = 8;

// Enums of the proto and ours are in the same order, the proto's behind its
// zero value.
template <typename Ours>
Ours FromProto(int value) {
  return static_cast<Ours>(value - 1);
}
static_assert(static_cast<int>(IntegrationRule::kGaussLegendre) ==
              v1::INTEGRATION_RULE_GAUSS_LEGENDRE - 1);
static_assert(static_cast<int>(GradientAxis::kTarget) ==
              v1::GRADIENT_AXIS_TARGET - 1);
static_assert(static_cast<int>(GradientReduction::kMaxRelu) ==
              v1::GRADIENT_REDUCTION_MAX_RELU - 1);
static_assert(static_cast<int>(Compatibility::kUpstream) ==
              v1::COMPATIBILITY_UPSTREAM - 1);
static_assert(static_cast<int>(AttentionKind::kMatrix) ==
              v1::ATTENTION_KIND_MATRIX - 1);
static_assert(static_cast<int>(ChannelReduction::kWnorm) ==
              v1::CHANNEL_REDUCTION_WNORM - 1);
static_assert(static_cast<int>(ChannelReduction::kAll) ==
              v1::CHANNEL_REDUCTION_ALL - 1);
static_assert(static_cast<int>(AttentionForm::kNoConv) ==
              v1::ATTENTION_FORM_NO_CONV - 1);
static_assert(static_cast<int>(AttentionForm::kUpstream) ==
              v1::ATTENTION_FORM_UPSTREAM - 1);

// Notes negative indices and repetitions. All are handed on, so that the
// engine's own findings have the same places.
std::vector<int64_t> ReadIndices(
    absl::string_view field,
    const google::protobuf::RepeatedField<int32_t>& values, Fields& fields) {
  std::set<int64_t> seen;
  int num_wrong = 0;
  for (int i = 0; i < values.size(); ++i) {
    const bool twice = !seen.insert(values[i]).second;
    if ((!twice && values[i] >= 0) || ++num_wrong > kMaxShown) continue;
    fields.Wrong(absl::StrCat(field, "[", i, "]"),
                 absl::StrCat(values[i], twice ? " appears more than once"
                                               : " is not 0 or more"));
  }
  if (num_wrong > kMaxShown) {
    fields.Wrong(field, absl::StrCat(num_wrong - kMaxShown,
                                     " more are negative or repeated"));
  }
  return {values.begin(), values.end()};
}

}  // namespace

std::optional<Baseline> ReadBaseline(const std::string& path,
                                     const v1::Baseline& message,
                                     Fields& fields) {
  Baseline baseline;
  switch (message.kind_case()) {
    case v1::Baseline::kZero:
      break;
    case v1::Baseline::kMean:
      baseline.kind = Baseline::Kind::kMean;
      break;
    case v1::Baseline::kTokenId:
      if (!fields.AtLeast<int64_t>(path + ".token_id", message.token_id(), 0)) {
        return std::nullopt;
      }
      baseline.kind = Baseline::Kind::kToken;
      baseline.token_id = message.token_id();
      break;
    case v1::Baseline::kTokens:
      baseline.kind = Baseline::Kind::kTokens;
      baseline.token_ids = {message.tokens().ids().begin(),
                            message.tokens().ids().end()};
      break;
    case v1::Baseline::kBlur:
      baseline.kind = Baseline::Kind::kBlur;
      break;
    case v1::Baseline::KIND_NOT_SET:
      fields.Wrong(path,
                   "one of zero, mean, token_id, tokens, blur is required");
      return std::nullopt;
  }
  return baseline;
}

MethodOptions ReadOptions(const v1::MethodOptions& message, Fields& fields) {
  MethodOptions options;
  constexpr int32_t kMax = std::numeric_limits<int32_t>::max();
  if (message.has_steps() &&
      fields.InRange("options.steps", message.steps(), 8, 1024)) {
    options.steps = message.steps();
  }
  if (message.has_baseline()) {
    options.baseline =
        ReadBaseline("options.baseline", message.baseline(), fields);
  }
  if (message.has_rule() && fields.Known("options.rule", message.rule(),
                                         *v1::IntegrationRule_descriptor())) {
    options.rule = FromProto<IntegrationRule>(message.rule());
  }
  if (message.has_start_layer() &&
      fields.InRange("options.start_layer", message.start_layer(), 0, kMax)) {
    options.start_layer = message.start_layer();
  }
  if (message.has_axis() && fields.Known("options.axis", message.axis(),
                                         *v1::GradientAxis_descriptor())) {
    options.axis = FromProto<GradientAxis>(message.axis());
  }
  if (message.has_compat() && fields.Known("options.compat", message.compat(),
                                           *v1::Compatibility_descriptor())) {
    options.compat = FromProto<Compatibility>(message.compat());
  }
  if (message.has_norm() &&
      fields.InRange("options.norm", message.norm(), 1, 2)) {
    options.norm = message.norm();
  }
  if (message.has_special_tokens()) {
    options.special_tokens = message.special_tokens();
  }
  if (message.has_smoothing_samples() &&
      fields.InRange("options.smoothing_samples", message.smoothing_samples(),
                     1, 256)) {
    options.smoothing_samples = message.smoothing_samples();
  }
  if (message.has_smoothing_noise() &&  // NaN is in no range
      fields.InRange("options.smoothing_noise", message.smoothing_noise(), 0.0,
                     1.0)) {
    options.smoothing_noise = message.smoothing_noise();
  }
  if (message.has_seed()) options.seed = message.seed();
  if (message.has_occlusion_window() &&
      fields.InRange("options.occlusion_window", message.occlusion_window(), 1,
                     64)) {
    options.occlusion_window = message.occlusion_window();
  }
  if (message.has_residual_weight() &&
      fields.InRange("options.residual_weight", message.residual_weight(), 0.0,
                     1000.0)) {
    options.residual_weight = message.residual_weight();
  }
  if (message.has_gradient_reduction() &&
      fields.Known("options.gradient_reduction", message.gradient_reduction(),
                   *v1::GradientReduction_descriptor())) {
    options.gradient_reduction =
        FromProto<GradientReduction>(message.gradient_reduction());
  }
  return options;
}

AttentionRequest ReadAttention(const v1::AttentionOptions& message,
                               Fields& fields) {
  AttentionRequest attention;
  if (message.has_kind() && fields.Known("attention.kind", message.kind(),
                                         *v1::AttentionKind_descriptor())) {
    attention.kind = FromProto<AttentionKind>(message.kind());
  }
  const bool reduction_ok =
      !message.has_channel_reduction() ||
      fields.Known("attention.channel_reduction", message.channel_reduction(),
                   *v1::ChannelReduction_descriptor());
  if (message.has_channel_reduction() && reduction_ok) {
    attention.reduction =
        FromProto<ChannelReduction>(message.channel_reduction());
  }
  if (message.has_form() && fields.Known("attention.form", message.form(),
                                         *v1::AttentionForm_descriptor())) {
    attention.form = FromProto<AttentionForm>(message.form());
  }
  attention.head_form = message.head_form();
  if (attention.head_form && !message.has_form()) {
    attention.form = AttentionForm::kState;
  }
  if (message.has_include_skip()) {
    attention.include_skip = message.include_skip();
  }
  attention.layers = ReadIndices("attention.layers", message.layers(), fields);
  const std::vector<int64_t> channels =
      ReadIndices("attention.channels", message.channels(), fields);
  if (attention.reduction == ChannelReduction::kAll) {
    attention.channels = channels;
  } else if (!message.channels().empty() && reduction_ok) {
    fields.Wrong("attention.channels",
                 "channels are chosen with CHANNEL_REDUCTION_ALL only");
  }
  if (message.has_downsample() &&
      fields.InRange("attention.downsample", message.downsample(), 1, 64)) {
    attention.downsample = message.downsample();
  }
  if (message.has_top_k() &&
      fields.AtLeast("attention.top_k", message.top_k(), 1)) {
    attention.top_k = message.top_k();
  }
  return attention;
}

}  // namespace limpid::validate
