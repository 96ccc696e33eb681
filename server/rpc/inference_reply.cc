// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/inference_reply.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/rpc/safe_text.h"

namespace limpid {
namespace {

using inference::InferTensorContents;
using inference::ModelInferResponse;
using inference::ModelMetadataResponse;

constexpr int64_t kDepends = -1;  // of a size
constexpr char kPieces[] = "tokens.pieces";

// The protocol's name of a type; empty for one that it has no place for.
const char* TypeName(v1::DataType type) {
  switch (type) {
    case v1::DATA_TYPE_FLOAT32:
      return "FP32";
    case v1::DATA_TYPE_FLOAT64:
      return "FP64";
    case v1::DATA_TYPE_INT64:
      return "INT64";
    default:
      return "";
  }
}

// Elements of packed numbers, one by one.
template <typename T, typename Field>
void Unpack(const std::string& packed, Field& field) {
  field.Resize(static_cast<int>(packed.size() / sizeof(T)), T{});
  std::memcpy(field.mutable_data(), packed.data(), field.size() * sizeof(T));
}

absl::Status AddTensor(const v1::Tensor& tensor, bool raw,
                       ModelInferResponse& out) {
  const v1::DataType type = tensor.header().data_type();
  auto& output = *out.add_outputs();
  output.set_name(tensor.header().name());
  output.set_datatype(TypeName(type));
  *output.mutable_shape() = tensor.header().shape();
  if (output.datatype().empty()) {
    return MakeError(
        absl::StatusCode::kInternal, "INTERNAL",
        absl::StrCat("tensor ", output.name(), " has a type without a name"));
  }
  if (raw) {
    out.add_raw_output_contents(tensor.data());
    return absl::OkStatus();
  }
  InferTensorContents& contents = *output.mutable_contents();
  if (type == v1::DATA_TYPE_FLOAT32) {
    Unpack<float>(tensor.data(), *contents.mutable_fp32_contents());
  } else if (type == v1::DATA_TYPE_FLOAT64) {
    Unpack<double>(tensor.data(), *contents.mutable_fp64_contents());
  } else {
    Unpack<int64_t>(tensor.data(), *contents.mutable_int64_contents());
  }
  return absl::OkStatus();
}

// The bytes of every token.
void AddPieces(const v1::ExplanationHeader& header, bool raw,
               ModelInferResponse& out) {
  auto& output = *out.add_outputs();
  output.set_name(kPieces);
  output.set_datatype("BYTES");
  output.add_shape(header.tokens_size());
  std::string packed;
  for (const v1::Token& token : header.tokens()) {
    const std::string& piece = token.piece_bytes();
    if (!raw) {
      output.mutable_contents()->add_bytes_contents(piece);
      continue;
    }
    const auto size = static_cast<uint32_t>(piece.size());
    packed.append(reinterpret_cast<const char*>(&size), sizeof(size));
    packed += piece;
  }
  if (raw) out.add_raw_output_contents(std::move(packed));
}

void AddFigures(const v1::ExplainResponse& response, ModelInferResponse& out) {
  const v1::ExplanationHeader& header = response.header();
  const v1::ExplanationSummary& summary = response.summary();
  auto& figures = *out.mutable_parameters();
  figures["method"].set_string_param(header.method());
  figures["model_digest"].set_string_param(header.model_digest());
  figures["request_id"].set_string_param(header.request_id());
  figures["position"].set_int64_param(header.position());
  figures["max_reconstruction_error"].set_double_param(
      summary.max_reconstruction_error());
  figures["num_non_finite"].set_int64_param(summary.num_non_finite());
  if (summary.has_completeness_error()) {
    figures["completeness_error"].set_double_param(
        summary.completeness_error());
  }
  if (summary.has_constant()) {
    figures["constant"].set_double_param(summary.constant());
  }
  if (summary.predictions_size() > 0) {
    const v1::Candidate& first = summary.predictions(0);
    figures["prediction.id"].set_int64_param(first.id());
    figures["prediction.piece"].set_string_param(first.piece());
    figures["prediction.probability"].set_double_param(first.probability());
  }
}

absl::Status CheckOutputs(const std::vector<std::string>& wanted,
                          const ModelInferResponse& reply) {
  std::vector<std::string> missing;
  for (const std::string& name : wanted) {
    const auto& made = reply.outputs();
    const bool there =
        std::any_of(made.begin(), made.end(),
                    [&](const auto& output) { return output.name() == name; });
    if (!there) missing.push_back(name);
  }
  if (missing.empty()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "OUTPUT_NOT_MADE",
                   absl::StrCat("not made by this method with these "
                                "parameters: ",
                                absl::StrJoin(missing, ", ")));
}

void AddMetadata(
    const char* name, const char* type, std::initializer_list<int64_t> shape,
    google::protobuf::RepeatedPtrField<ModelMetadataResponse::TensorMetadata>&
        list) {
  auto& tensor = *list.Add();
  tensor.set_name(name);
  tensor.set_datatype(type);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
}

std::string VersionText(int64_t version) {
  return version == 0 ? kOnlyVersion : absl::StrCat(version);
}

}  // namespace

absl::StatusOr<ModelInferResponse> EncodeInference(
    const v1::ExplainResponse& response, const InferenceRequest& request) {
  const auto wanted = [&](const std::string& name) {
    const auto& outputs = request.outputs;
    return outputs.empty() ||
           std::find(outputs.begin(), outputs.end(), name) != outputs.end();
  };
  ModelInferResponse out;
  out.set_model_name(response.header().model());
  out.set_model_version(VersionText(response.header().model_version()));
  out.set_id(request.id);
  for (const v1::Tensor& tensor : response.tensors()) {
    if (!wanted(tensor.header().name())) continue;
    LIMPID_RETURN_IF_ERROR(AddTensor(tensor, request.raw, out));
  }
  if (response.header().tokens_size() > 0 && wanted(kPieces)) {
    AddPieces(response.header(), request.raw, out);
  }
  LIMPID_RETURN_IF_ERROR(CheckOutputs(request.outputs, out));
  AddFigures(response, out);
  return out;
}

ModelMetadataResponse EncodeMetadata(const ModelInfo& info,
                                     const std::vector<int64_t>& versions) {
  ModelMetadataResponse out;
  out.set_name(info.name);
  for (const int64_t version : versions) {
    out.add_versions(VersionText(version));
  }
  if (versions.empty()) out.add_versions(kOnlyVersion);
  out.set_platform(absl::StrCat("limpid_", info.architecture));
  auto& inputs = *out.mutable_inputs();
  auto& outputs = *out.mutable_outputs();
  if (info.modality == Modality::kImage) {
    AddMetadata("image", "BYTES", {1}, inputs);
    AddMetadata("pixels", "FP32", {3, info.image_height, info.image_width},
                inputs);
    AddMetadata("attribution", "FP32", {info.grid_rows, info.grid_columns},
                outputs);
  } else {
    if (info.has_tokenizer) AddMetadata("text", "BYTES", {1}, inputs);
    AddMetadata("tokens", "INT64", {kDepends}, inputs);
    AddMetadata("attribution", "FP32", {kDepends}, outputs);
  }
  AddMetadata("attribution.layers", "FP32", {info.num_layers, kDepends},
              outputs);
  for (int64_t layer = 0; layer < info.num_layers; ++layer) {
    AddMetadata(absl::StrCat("layers.", layer, ".attention").c_str(), "FP32",
                {kDepends}, outputs);
  }
  AddMetadata("logits", "FP32", {info.vocabulary_size}, outputs);
  if (info.modality == Modality::kText) {
    AddMetadata("tokens", "INT64", {kDepends}, outputs);
    AddMetadata(kPieces, "BYTES", {kDepends}, outputs);
  }
  return out;
}

inference::RepositoryIndexResponse::ModelIndex EncodeIndexEntry(
    const ModelStatus& status) {
  inference::RepositoryIndexResponse::ModelIndex entry;
  entry.set_name(status.name);
  const int64_t newest = status.versions.empty() ? 0 : status.versions.front();
  entry.set_version(VersionText(status.info ? status.info->version : newest));
  switch (status.state) {
    case ModelState::kReady:
      entry.set_state("READY");
      break;
    case ModelState::kLoading:
      entry.set_state("LOADING");
      break;
    case ModelState::kUnloading:
      entry.set_state("UNLOADING");
      break;
    case ModelState::kUnloaded:
    case ModelState::kFailed:
      entry.set_state("UNAVAILABLE");
      break;
  }
  if (!status.failure.ok()) {
    entry.set_reason(SafeText(status.failure.message()));
  } else if (status.state == ModelState::kUnloaded) {
    entry.set_reason("not loaded");
  }
  return entry;
}

}  // namespace limpid
