// SPDX-License-Identifier: Apache-2.0
#include "client/cli/save_file.h"

#include <cmath>
#include <list>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/cli/flag_values.h"
#include "client/cli/json_output.h"
#include "client/tensor_codec.h"
#include "server/checkpoint/safetensors.h"

namespace limpid::cli {
namespace {

using Json = nlohmann::json;

Json Number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

std::string PredictionJson(const v1::ExplanationSummary& summary) {
  Json list = Json::array();
  for (const v1::Candidate& candidate : summary.predictions()) {
    list.push_back({{"id", candidate.id()},
                    {"piece", candidate.piece()},
                    {"logit", Number(candidate.logit())},
                    {"probability", Number(candidate.probability())}});
  }
  return Dump(list);
}

std::string TokensJson(const v1::ExplanationHeader& header) {
  Json list = Json::array();
  for (const v1::Token& token : header.tokens()) {
    Json entry = {{"index", token.index()}, {"id", token.id()},
                  {"piece", token.piece()}, {"begin", token.begin()},
                  {"end", token.end()},     {"special", token.special()}};
    if (token.piece() != token.piece_bytes() && !token.piece_bytes().empty()) {
      // Part of a character: JSON has no other way to say it.
      entry["piece_hex"] = absl::BytesToHexString(token.piece_bytes());
    }
    list.push_back(std::move(entry));
  }
  return Dump(list);
}

std::string ErrorsJson(const v1::ExplanationSummary& summary) {
  Json errors = Json::object();
  for (const v1::LayerReport& layer : summary.layers()) {
    errors[absl::StrCat(layer.layer())] = Number(layer.reconstruction_error());
  }
  return Dump(errors);
}

template <class T>
std::span<const std::byte> BytesOf(const std::vector<T>& values) {
  return std::as_bytes(std::span<const T>(values));
}

TensorView ViewOf(const v1::TensorHeader& header, DType dtype,
                  std::span<const std::byte> bytes) {
  return {dtype, {header.shape().begin(), header.shape().end()}, bytes};
}

// Whether the bytes can go to the file as they came.
bool IsPlain(const v1::Tensor& tensor) {
  return tensor.floats().empty() &&
         tensor.header().layout() == v1::TENSOR_LAYOUT_ROW_MAJOR &&
         (tensor.header().data_type() == v1::DATA_TYPE_FLOAT32 ||
          tensor.header().data_type() == v1::DATA_TYPE_INT64);
}

}  // namespace

std::map<std::string, std::string> SaveMetadata(
    const Explanation& explanation) {
  const v1::ExplanationHeader& header = explanation.header;
  const v1::ExplanationSummary& summary = explanation.summary;
  return {
      {"model", header.model()},
      {"model_digest", header.model_digest()},
      {"architecture", header.architecture()},
      {"method", header.method()},
      {"target", FormatTarget(summary.target())},
      {"position", absl::StrCat(header.position())},
      {"prediction", PredictionJson(summary)},
      {"tokens_json", TokensJson(header)},
      {"reconstruction_error", ErrorsJson(summary)},
      {"completeness_error", summary.has_completeness_error()
                                 ? Dump(Number(summary.completeness_error()))
                                 : "null"},
      {"server_version", header.server_version()},
      {"device", header.device()},
      {"precision", v1::Precision_Name(header.arithmetic().precision())},
      {"operands", header.arithmetic().operands()},
      {"logits_error", Dump(Number(header.arithmetic().logits_error()))},
  };
}

absl::Status SaveExplanation(const std::string& path,
                             const Explanation& explanation) {
  std::map<std::string, TensorView> views;
  // Lists, because the views point into their elements.
  std::list<std::vector<float>> floats;
  std::vector<int64_t> ids;
  for (const auto& [name, tensor] : explanation.tensors) {
    const v1::TensorHeader& header = tensor.header();
    if (absl::Status s = CheckTensor(tensor); !s.ok()) return s;
    if (IsPlain(tensor)) {
      const bool ints = header.data_type() == v1::DATA_TYPE_INT64;
      views[name] = ViewOf(header, ints ? DType::kInt64 : DType::kFloat32,
                           std::as_bytes(std::span(tensor.data())));
      continue;
    }
    absl::StatusOr<std::vector<float>> values = UnpackFloats(tensor);
    if (!values.ok()) return values.status();
    floats.push_back(*std::move(values));
    views[name] = ViewOf(header, DType::kFloat32, BytesOf(floats.back()));
  }
  if (!explanation.header.tokens().empty() && views.count("tokens") == 0) {
    for (const v1::Token& token : explanation.header.tokens()) {
      ids.push_back(token.id());
    }
    views["tokens"] = {
        DType::kInt64, {static_cast<int64_t>(ids.size())}, BytesOf(ids)};
  }
  return WriteSafetensors(path, views, SaveMetadata(explanation));
}

}  // namespace limpid::cli
