// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/inference_request.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/rpc/field_path.h"
#include "server/rpc/inference_input.h"
#include "server/rpc/safe_text.h"

namespace limpid {
namespace {

constexpr char kPoint[] = "point.";
// What the protocol itself says, or has no words for the answer to.
constexpr absl::string_view kOwnFields[] = {
    "model",           "input",         "output.attention_data_type",
    "output.logits",   "validate_only", "output.attention_layout",
    "output.encoding",
};
// Outputs beside those of layers.
constexpr absl::string_view kOutputs[] = {
    "attribution",
    "attribution.layers",
    "attribution.units",
    "attribution.elementwise",
    "gradient",
    "logits",
    "tokens",
    "tokens.pieces",
};

std::optional<ParameterValue> ReadParameter(
    const inference::InferParameter& parameter) {
  using Parameter = inference::InferParameter;
  switch (parameter.parameter_choice_case()) {
    case Parameter::kBoolParam:
      return parameter.bool_param();
    case Parameter::kInt64Param:
      return parameter.int64_param();
    case Parameter::kStringParam:
      return parameter.string_param();
    case Parameter::kDoubleParam:
      return parameter.double_param();
    case Parameter::kUint64Param:
      // No field takes more; the largest stands for all beyond.
      return static_cast<int64_t>(
          std::min<uint64_t>(parameter.uint64_param(), INT64_MAX));
    case Parameter::PARAMETER_CHOICE_NOT_SET:
      break;
  }
  return std::nullopt;
}

bool IsOwnField(absl::string_view path) {
  for (const absl::string_view field : kOwnFields) {
    if (path == field || absl::StartsWith(path, absl::StrCat(field, "."))) {
      return true;
    }
  }
  return false;
}

void ReadParameters(const inference::ModelInferRequest& message,
                    v1::ExplainRequest& explain, Violations& violations) {
  // In the order of their names, so that complaints do not change places.
  std::vector<std::string> names;
  for (const auto& [name, value] : message.parameters()) names.push_back(name);
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    if (name == kContentType) continue;
    const auto wrong = [&](absl::string_view what) {
      violations.Add(absl::StrCat("parameters[\"", SafeText(name), "\"]"),
                     what);
    };
    const auto value = ReadParameter(message.parameters().at(name));
    if (!value) {
      wrong("has no value");
      continue;
    }
    if (IsOwnField(name)) {
      wrong("is not set by a parameter");
      continue;
    }
    absl::string_view path = name;
    google::protobuf::Message* target = &explain;
    if (absl::ConsumePrefix(&path, kPoint)) {
      if (explain.points_size() == 0) explain.add_points();
      target = explain.mutable_points(0);
    }
    const std::string problem = SetFieldByPath(path, *value, *target);
    if (!problem.empty()) wrong(problem);
  }
}

// The layer of "layers.{l}.attention" and the like, or nothing.
std::optional<int32_t> LayerOf(absl::string_view name) {
  int32_t layer = 0;
  if (!absl::ConsumePrefix(&name, "layers.")) return std::nullopt;
  const size_t dot = name.find('.');
  if (dot == absl::string_view::npos ||
      !absl::SimpleAtoi(name.substr(0, dot), &layer)) {
    return std::nullopt;
  }
  const absl::string_view kind = name.substr(dot + 1);
  const bool known = kind == "attention" || kind == "bias" || kind == "value" ||
                     kind == "output";
  return known ? std::optional(layer) : std::nullopt;
}

// What has to be computed for the outputs.
void ReadOutputs(const inference::ModelInferRequest& message,
                 InferenceRequest& request, Violations& violations) {
  v1::ExplainRequest& explain = request.explain;
  std::vector<int32_t> layers;
  bool logits = message.outputs().empty();
  for (int i = 0; i < message.outputs_size(); ++i) {
    const std::string& name = message.outputs(i).name();
    const std::string path = absl::StrCat("outputs[", i, "]");
    const auto layer = LayerOf(name);
    if (!layer && std::find(std::begin(kOutputs), std::end(kOutputs), name) ==
                      std::end(kOutputs)) {
      violations.Add(absl::StrCat(path, ".name"),
                     absl::StrCat("no output \"", SafeText(name),
                                  "\"; ModelMetadata lists them"));
      continue;
    }
    for (const auto& [key, value] : message.outputs(i).parameters()) {
      if (key == kContentType) continue;
      violations.Add(absl::StrCat(path, ".parameters[\"", SafeText(key), "\"]"),
                     "no such parameter");
    }
    request.outputs.push_back(name);
    logits = logits || name == "logits";
    if (layer) layers.push_back(*layer);
  }
  if (logits) explain.mutable_output()->set_logits(true);
  if (request.outputs.empty()) return;
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  auto& attention = *explain.mutable_attention();
  attention.mutable_layers()->Assign(layers.begin(), layers.end());
  if (layers.empty()) attention.set_kind(v1::ATTENTION_KIND_NONE);
}

}  // namespace

absl::StatusOr<InferenceRequest> ToExplainRequest(
    const inference::ModelInferRequest& message, const ModelNamer& name_of) {
  InferenceRequest request;
  Violations violations;
  request.explain.set_model(name_of("model_version", message.model_name(),
                                    message.model_version(), violations));
  request.id = message.id();
  request.raw = message.raw_input_contents_size() > 0;
  ReadInferenceInput(message, *request.explain.mutable_input(), violations);
  ReadParameters(message, request.explain, violations);
  ReadOutputs(message, request, violations);
  LIMPID_RETURN_IF_ERROR(violations.ToStatus());
  return request;
}

}  // namespace limpid
