// SPDX-License-Identifier: Apache-2.0
#include "client/cli/json_output.h"

#include <google/protobuf/stubs/common.h>
#include <google/protobuf/util/json_util.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/error_report.h"
#include "client/tensor_codec.h"

namespace limpid::cli {
namespace {

using Json = nlohmann::json;

void AppendNumber(int64_t value, std::string& out) {
  absl::StrAppend(&out, value);
}

// The shortest text that reads back as the same float.
void AppendNumber(float value, std::string& out) {
  if (std::isfinite(value)) {
    char buffer[32];
    const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value);
    out.append(buffer, end.ptr);
  } else if (std::isnan(value)) {
    out += "\"NaN\"";
  } else {
    out += value > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  }
}

// The list along dimension `depth`; takes its elements from the front of
// `values`.
template <class T>
void AppendList(const google::protobuf::RepeatedField<int64_t>& shape,
                int depth, std::span<const T>& values, std::string& out) {
  if (depth == shape.size()) {
    AppendNumber(values.front(), out);
    values = values.subspan(1);
    return;
  }
  out += '[';
  for (int64_t i = 0; i < shape.Get(depth); ++i) {
    if (i > 0) out += ',';
    AppendList(shape, depth + 1, values, out);
  }
  out += ']';
}

template <class T>
void AppendNested(const v1::TensorHeader& header, const std::vector<T>& values,
                  std::string& out) {
  // Without elements a size may be anything, so it must not be counted to.
  if (values.empty()) {
    out += "[]";
    return;
  }
  std::span<const T> rest(values);
  AppendList(header.shape(), 0, rest, out);
}

}  // namespace

absl::StatusOr<std::string> MessageJson(
    const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
#if GOOGLE_PROTOBUF_VERSION >= 5026000
  options.always_print_fields_with_no_presence = true;
#else
  options.always_print_primitive_fields = true;
#endif
  std::string json;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) {
    return ClientError(
        absl::StatusCode::kDataLoss, "REPLY_DAMAGED",
        absl::StrCat("no JSON can be made of the reply: ", status.ToString()));
  }
  return json;
}

absl::Status AppendTensorJson(const v1::Tensor& tensor, std::string& out) {
  if (tensor.header().data_type() == v1::DATA_TYPE_INT64 &&
      tensor.floats_size() == 0) {
    const absl::StatusOr<std::vector<int64_t>> values = UnpackInts(tensor);
    if (!values.ok()) return values.status();
    AppendNested(tensor.header(), *values, out);
    return absl::OkStatus();
  }
  const absl::StatusOr<std::vector<float>> values = UnpackFloats(tensor);
  if (!values.ok()) return values.status();
  AppendNested(tensor.header(), *values, out);
  return absl::OkStatus();
}

absl::StatusOr<std::string> ExplanationJson(const Explanation& explanation) {
  const absl::StatusOr<std::string> header = MessageJson(explanation.header);
  if (!header.ok()) return header;
  const absl::StatusOr<std::string> summary = MessageJson(explanation.summary);
  if (!summary.ok()) return summary;
  std::string out = absl::StrCat("{\"header\":", *header,
                                 ",\"summary\":", *summary, ",\"tensors\":{");
  bool first = true;
  for (const auto& [name, tensor] : explanation.tensors) {
    absl::StrAppend(&out, first ? "" : ",", QuotedJson(name), ":");
    if (absl::Status s = AppendTensorJson(tensor, out); !s.ok()) return s;
    first = false;
  }
  out += "}}";
  return out;
}

std::string ErrorJson(const absl::Status& status) {
  const ErrorReport report = GetErrorReport(status);
  Json json = {{"code", CanonicalName(status.code())},
               {"message", std::string(status.message())},
               {"reason", report.reason},
               {"requestId", report.request_id},
               {"metadata", report.metadata},
               {"violations", Json::array()}};
  for (const auto& [field, description] : report.violations) {
    json["violations"].push_back(
        {{"field", field}, {"description", description}});
  }
  if (report.retry_after) {
    json["retryAfterSeconds"] = absl::ToDoubleSeconds(*report.retry_after);
  }
  return Dump(json);
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string QuotedJson(const std::string& text) { return Dump(Json(text)); }

}  // namespace limpid::cli
