// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/encode_reply.h"

#include <algorithm>

#include "server/rpc/safe_text.h"
#include "server/rpc/status_map.h"

namespace limpid {
namespace {

v1::ModelState EncodeState(ModelState state) {
  switch (state) {
    case ModelState::kUnloaded:
      return v1::MODEL_STATE_UNLOADED;
    case ModelState::kLoading:
      return v1::MODEL_STATE_LOADING;
    case ModelState::kReady:
      return v1::MODEL_STATE_READY;
    case ModelState::kUnloading:
      return v1::MODEL_STATE_UNLOADING;
    case ModelState::kFailed:
      break;
  }
  return v1::MODEL_STATE_FAILED;
}

bool Serves(const MethodSpec& method, const std::string& architecture) {
  return method.architectures.empty() ||
         std::find(method.architectures.begin(), method.architectures.end(),
                   architecture) != method.architectures.end();
}

void EncodeInfo(const ModelInfo& info, v1::Model& model) {
  model.set_architecture(info.architecture);
  model.set_digest(info.digest);
  model.set_version(info.version);
  model.set_modality(info.modality == Modality::kText ? v1::MODALITY_TEXT
                                                      : v1::MODALITY_IMAGE);
  model.set_has_tokenizer(info.has_tokenizer);
  model.set_num_layers(static_cast<int32_t>(info.num_layers));
  model.set_hidden_size(static_cast<int32_t>(info.hidden_size));
  model.set_num_channels(static_cast<int32_t>(info.num_channels));
  model.set_state_size(static_cast<int32_t>(info.state_size));
  model.set_vocabulary_size(static_cast<int32_t>(info.vocabulary_size));
  model.set_resident_bytes(info.resident_bytes);
  model.set_device(info.device);
  model.set_experimental(info.experimental);
  model.set_causal(info.causal);
  for (const AttentionForm form : info.forms) {
    model.add_forms(std::string(FormName(form)));
  }
}

void EncodeCurve(const FaithfulnessCurve& curve,
                 v1::FaithfulnessCurve& message) {
  message.mutable_fraction()->Add(curve.fractions.begin(),
                                  curve.fractions.end());
  message.mutable_score()->Add(curve.scores.begin(), curve.scores.end());
  message.set_area(curve.area);
  message.set_random_area(curve.random_area);
}

void EncodeTarget(const ResolvedTarget& target, const ModelInfo& model,
                  v1::Target& message) {
  if (target.baseline_id) {
    message.mutable_contrast()->set_id(target.id);
    message.mutable_contrast()->set_baseline_id(*target.baseline_id);
  } else if (model.modality == Modality::kImage) {
    message.set_class_id(target.id);
  } else {
    message.set_token_id(target.id);
  }
}

void EncodeUnit(const ResultUnit& unit, float value,
                v1::UnitAttribution& message) {
  if (unit.region.empty()) {
    message.mutable_tokens()->set_begin(static_cast<int32_t>(unit.begin));
    message.mutable_tokens()->set_end(static_cast<int32_t>(unit.end));
  } else {
    v1::PatchRegion& region = *message.mutable_region();
    region.set_row_begin(static_cast<int32_t>(unit.region[0]));
    region.set_row_end(static_cast<int32_t>(unit.region[1]));
    region.set_column_begin(static_cast<int32_t>(unit.region[2]));
    region.set_column_end(static_cast<int32_t>(unit.region[3]));
  }
  message.set_text(SafeText(unit.text));
  message.set_value(value);
}

// Into a PointSummary, or into the fields of the same names of a summary.
template <typename Message>
void EncodePoint(const PointSummary& point,
                 const std::vector<ResultUnit>& units, const ModelInfo& model,
                 const v1::ExplanationHeader& header, Message& message) {
  EncodeTarget(point.target, model, *message.mutable_target());
  for (const Prediction& prediction : point.predictions) {
    v1::Candidate& candidate = *message.add_predictions();
    candidate.set_id(prediction.id);
    candidate.set_piece(SafeText(prediction.piece));
    candidate.set_logit(prediction.logit);
    candidate.set_probability(prediction.probability);
  }
  // Patches are in the tensor only: they have no text to stand beside.
  if (header.tokens_size() == static_cast<int>(point.attribution.size())) {
    for (int i = 0; i < header.tokens_size(); ++i) {
      v1::TokenAttribution& value = *message.add_attributions();
      value.set_index(i);
      value.set_piece(header.tokens(i).piece());
      value.set_value(point.attribution[i]);
    }
  }
  for (size_t i = 0; i < units.size(); ++i) {
    EncodeUnit(units[i], point.units[i], *message.add_units());
  }
  if (point.completeness_error) {
    message.set_completeness_error(*point.completeness_error);
  }
  if (point.constant) message.set_constant(*point.constant);
  if (point.faithfulness) {
    v1::Faithfulness& measured = *message.mutable_faithfulness();
    EncodeCurve(point.faithfulness->deletion, *measured.mutable_deletion());
    EncodeCurve(point.faithfulness->insertion, *measured.mutable_insertion());
    measured.set_random_orders(
        static_cast<int32_t>(point.faithfulness->random_orders));
    measured.set_seed(point.faithfulness->seed);
  }
}

}  // namespace

v1::ExplanationHeader EncodeHeader(const ResultHeader& header,
                                   const ModelInfo& model,
                                   const ReplyContext& context) {
  v1::ExplanationHeader out;
  out.set_model(model.name);
  out.set_model_digest(model.digest);
  out.set_model_version(model.version);
  out.set_architecture(model.architecture);
  out.set_method(header.method);
  out.mutable_tokens()->Reserve(static_cast<int>(header.tokens.size()));
  int32_t index = 0;
  for (const ResultToken& token : header.tokens) {
    v1::Token& t = *out.add_tokens();
    t.set_index(index++);
    t.set_id(token.id);
    t.set_piece(SafeText(token.piece));
    t.set_piece_bytes(token.piece);
    t.set_begin(static_cast<int32_t>(token.begin));
    t.set_end(static_cast<int32_t>(token.end));
    t.set_special(token.special);
  }
  for (const int64_t side : header.patch_grid) {
    out.add_patch_grid(static_cast<int32_t>(side));
  }
  if (!header.positions.empty()) {
    out.set_position(static_cast<int32_t>(header.positions.front()));
  }
  for (const int64_t layer : header.layers) {
    out.add_layers(static_cast<int32_t>(layer));
  }
  out.set_request_id(context.request_id);
  out.set_server_version(context.server_version);
  out.set_device(header.device);
  v1::Arithmetic& arithmetic = *out.mutable_arithmetic();
  arithmetic.set_precision(
      static_cast<v1::Precision>(static_cast<int>(header.precision) + 1));
  arithmetic.set_operands(header.arithmetic.operands);
  arithmetic.set_logits_error(header.arithmetic.logits_error);
  out.set_num_tokens(static_cast<int32_t>(header.num_positions));
  return out;
}

v1::ExplanationSummary EncodeSummary(const ResultSummary& summary,
                                     const ModelInfo& model,
                                     const v1::ExplanationHeader& header) {
  v1::ExplanationSummary out;
  double largest = 0;
  for (const LayerReport& layer : summary.layers) {
    v1::LayerReport& report = *out.add_layers();
    report.set_layer(static_cast<int32_t>(layer.layer));
    report.set_reconstruction_error(layer.reconstruction_error);
    // A NaN must not be lost among the others.
    if (!(layer.reconstruction_error <= largest)) {
      largest = layer.reconstruction_error;
    }
  }
  out.set_max_reconstruction_error(largest);
  out.set_num_non_finite(summary.num_non_finite);
  out.set_num_tensors(static_cast<int32_t>(summary.num_tensors));
  if (!summary.points.empty()) {
    EncodePoint(summary.points.front(), summary.units, model, header, out);
  }
  if (summary.points.size() > 1) {
    for (const PointSummary& point : summary.points) {
      v1::PointSummary& message = *out.add_points();
      message.set_position(static_cast<int32_t>(point.position));
      EncodePoint(point, summary.units, model, header, message);
    }
  }
  return out;
}

v1::Cost EncodeCost(const Cost& cost, bool fits_unary_reply) {
  v1::Cost out;
  out.set_flops(cost.flops);
  out.set_peak_bytes(cost.peak_bytes);
  out.set_reply_bytes(cost.reply_bytes);
  out.set_compute_seconds(cost.compute_seconds);
  out.set_fits_unary_reply(fits_unary_reply);
  return out;
}

v1::Model EncodeModel(const ModelStatus& status,
                      const std::vector<MethodSpec>& methods,
                      int64_t max_tokens) {
  v1::Model model;
  model.set_name(status.name);
  model.set_state(EncodeState(status.state));
  if (!status.failure.ok()) {
    model.set_state_reason(SafeText(status.failure.message()));
    model.set_state_reason_code(ReasonOf(status.failure));
  }
  model.mutable_available_versions()->Add(status.versions.begin(),
                                          status.versions.end());
  if (!status.info) return model;
  EncodeInfo(*status.info, model);
  model.set_max_tokens(static_cast<int32_t>(max_tokens));
  for (const MethodSpec& method : methods) {
    if (Serves(method, status.info->architecture)) {
      model.add_methods(method.name);
    }
  }
  return model;
}

v1::Method EncodeMethod(const MethodSpec& method,
                        const std::vector<std::string>& architectures) {
  v1::Method out;
  out.set_name(method.name);
  out.set_description(method.description);
  out.set_source(method.source);
  const std::vector<std::string>& served =
      method.architectures.empty() ? architectures : method.architectures;
  out.mutable_architectures()->Add(served.begin(), served.end());
  out.mutable_experimental_architectures()->Add(
      method.experimental_architectures.begin(),
      method.experimental_architectures.end());
  for (const OptionSpec& option : method.options) {
    v1::MethodOptionSpec& spec = *out.add_options();
    spec.set_name(option.name);
    spec.set_description(option.description);
  }
  out.set_uses_target(method.uses_target);
  out.set_complete(method.complete);
  return out;
}

void SetDuration(absl::Duration duration, google::protobuf::Duration& message) {
  absl::Duration rest;
  message.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
  message.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
}

}  // namespace limpid
