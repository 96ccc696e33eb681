// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/validate.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/safe_text.h"
#include "server/rpc/validate_fields.h"

namespace limpid {
namespace {

using validate::Fields;

constexpr size_t kMaxNameShown = 64;

void ReadMethod(const std::string& name, const std::vector<MethodSpec>& methods,
                Fields& fields, ExplainRequest& request) {
  if (name.empty()) return;
  std::string names;
  for (const MethodSpec& method : methods) {
    if (method.name == name) {
      request.method = name;
      return;
    }
    absl::StrAppend(&names, names.empty() ? "" : ", ", method.name);
  }
  fields.Wrong("method",
               absl::StrCat("no method \"",
                            absl::Utf8SafeCEscape(CutUtf8(name, kMaxNameShown)),
                            "\"; known methods: ", names));
  // Options that fit no method in particular can't be judged.
  fields.StandIn("method");
  fields.StandIn("options");
}

Precision ReadPrecision(const v1::ExplainRequest& message, Fields& fields) {
  if (!message.has_precision() ||
      !fields.Known("precision", message.precision(),
                    *v1::Precision_descriptor())) {
    return Precision::kFloat32;
  }
  return static_cast<Precision>(message.precision() - 1);
}
static_assert(static_cast<int>(Precision::kFast) == v1::PRECISION_FAST - 1);

std::optional<FaithfulnessRequest> ReadFaithfulness(
    const v1::FaithfulnessOptions& message, Fields& fields) {
  FaithfulnessRequest request;
  if (message.has_random_orders() &&
      fields.InRange("faithfulness.random_orders", message.random_orders(), 1,
                     64)) {
    request.random_orders = message.random_orders();
  }
  request.seed = message.seed();
  if (message.has_replacement()) {
    const auto replacement = validate::ReadBaseline(
        "faithfulness.replacement", message.replacement(), fields);
    if (replacement) request.replacement = *replacement;
  }
  if (!message.enabled()) return std::nullopt;
  return request;
}

AggregationRequest ReadAggregation(const v1::Aggregation& message,
                                   Fields& fields) {
  using Unit = AggregationRequest::Unit;
  AggregationRequest request;
  if (message.has_unit() && fields.Known("aggregation.unit", message.unit(),
                                         *v1::AggregationUnit_descriptor())) {
    request.unit = static_cast<Unit>(message.unit() - 1);
  }
  for (const v1::TokenSpan& span : message.spans()) {
    request.spans.push_back({span.begin(), span.end()});
  }
  for (const v1::PatchRegion& region : message.regions()) {
    request.regions.push_back({{region.row_begin(), region.row_end()},
                               {region.column_begin(), region.column_end()}});
  }
  if (request.unit != Unit::kSpan && !request.spans.empty()) {
    fields.Wrong("aggregation.spans", "are for AGGREGATION_UNIT_SPAN only");
  }
  if (request.unit != Unit::kRegion && !request.regions.empty()) {
    fields.Wrong("aggregation.regions", "are for AGGREGATION_UNIT_REGION only");
  }
  return request;
}
static_assert(static_cast<int>(AggregationRequest::Unit::kRegion) ==
              v1::AGGREGATION_UNIT_REGION - 1);

void ReadOutput(const v1::OutputOptions& message, Fields& fields,
                ValidatedRequest& out) {
  out.request.logits = message.logits();
  out.request.debug_tensors = message.debug_tensors();
  if (message.has_encoding() &&
      fields.Known("output.encoding", message.encoding(),
                   *v1::TensorEncoding_descriptor())) {
    out.encode.floats = message.encoding() == v1::TENSOR_ENCODING_FLOATS;
  }
  if (message.has_attention_data_type()) {
    const v1::DataType type = message.attention_data_type();
    if (type == v1::DATA_TYPE_FLOAT32 || type == v1::DATA_TYPE_FLOAT16 ||
        type == v1::DATA_TYPE_UINT8) {
      out.encode.attention_type = type;
    } else {
      fields.Wrong("output.attention_data_type",
                   absl::StrCat(static_cast<int>(type),
                                " is not one of DATA_TYPE_FLOAT32, "
                                "DATA_TYPE_FLOAT16, DATA_TYPE_UINT8"));
    }
  }
  if (message.has_attention_layout() &&
      fields.Known("output.attention_layout", message.attention_layout(),
                   *v1::TensorLayout_descriptor())) {
    out.encode.lower_triangular =
        message.attention_layout() == v1::TENSOR_LAYOUT_LOWER_TRIANGULAR;
  }
  if (message.has_top_k() &&
      fields.InRange("output.top_k", message.top_k(), 1, 100)) {
    out.request.top_k = message.top_k();
  }
}

// Whether the engine's finding is news: not about a stand-in, and not about a
// field of which the sender hears already.
bool IsNews(const ValidatedRequest& request, const std::string& field) {
  for (const std::string& path : request.stand_ins) {
    if (field == path || absl::StartsWith(field, path + ".") ||
        absl::StartsWith(field, path + "[")) {
      return false;
    }
  }
  return std::none_of(
      request.violations.begin(), request.violations.end(),
      [&](const FieldViolation& known) { return known.field == field; });
}

}  // namespace

ValidatedRequest Validate(const v1::ExplainRequest& message,
                          const std::vector<MethodSpec>& methods) {
  ValidatedRequest out;
  Fields fields(out);
  out.model = message.model();
  out.validate_only = message.validate_only();
  if (message.model().empty()) fields.Wrong("model", "required");
  out.request.input = validate::ReadInput(message, fields);
  ReadMethod(message.method(), methods, fields, out.request);
  out.request.options = validate::ReadOptions(message.options(), fields);
  out.request.points = validate::ReadPoints(message.points(), fields);
  out.request.attention = validate::ReadAttention(message.attention(), fields);
  ReadOutput(message.output(), fields, out);
  out.request.precision = ReadPrecision(message, fields);
  out.request.faithfulness = ReadFaithfulness(message.faithfulness(), fields);
  out.request.aggregation = ReadAggregation(message.aggregation(), fields);
  return out;
}

v1::ExplainRequest ToExplainRequest(const v1::RenderHeatmapRequest& message) {
  v1::ExplainRequest request;
  request.set_model(message.model());
  if (message.has_input()) *request.mutable_input() = message.input();
  request.set_method(message.method());
  if (message.has_options()) *request.mutable_options() = message.options();
  if (message.has_point()) *request.add_points() = message.point();
  if (message.has_attention()) {
    *request.mutable_attention() = message.attention();
  }
  if (!message.attention().has_kind()) {
    request.mutable_attention()->set_kind(v1::ATTENTION_KIND_NONE);
  }
  return request;
}

absl::Status ValidatedRequest::ToStatus() const {
  Violations all;
  for (const FieldViolation& v : violations) all.Add(v.field, v.description);
  return all.ToStatus();
}

absl::Status MergeStatus(const ValidatedRequest& request,
                         const absl::Status& engine) {
  if (engine.code() == absl::StatusCode::kInvalidArgument) {
    ValidatedRequest all = request;
    for (FieldViolation& v : GetErrorDetails(engine).violations) {
      if (IsNews(request, v.field)) all.violations.push_back(std::move(v));
    }
    absl::Status merged = all.ToStatus();
    return merged.ok() ? engine : merged;
  }
  absl::Status own = request.ToStatus();
  return own.ok() ? engine : own;
}

}  // namespace limpid
