// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fake_explanation_service.h"

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/tensor_codec.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace limpid::testing {
namespace {

const grpc::Status kUnset(grpc::StatusCode::UNIMPLEMENTED, "no handler");

void Describe(v1::Tensor& tensor, const std::string& name,
              v1::DataType data_type, const std::vector<int64_t>& shape) {
  v1::TensorHeader& header = *tensor.mutable_header();
  header.set_name(name);
  header.set_data_type(data_type);
  header.set_layout(v1::TENSOR_LAYOUT_ROW_MAJOR);
  for (const int64_t size : shape) header.add_shape(size);
  header.set_num_bytes(static_cast<int64_t>(tensor.data().size()));
  header.set_crc32(Crc32(tensor.data()));
}

}  // namespace

class FakeServer::Explanations final : public v1::ExplanationService::Service {
 public:
  explicit Explanations(FakeHandlers handlers)
      : handlers_(std::move(handlers)) {}

  grpc::Status Explain(grpc::ServerContext* context,
                       const v1::ExplainRequest* request,
                       v1::ExplainResponse* response) override {
    if (!handlers_.explain) return kUnset;
    return handlers_.explain(*context, *request, *response);
  }
  grpc::Status StreamExplain(grpc::ServerContext* context,
                             const v1::ExplainRequest* request,
                             StreamWriter* writer) override {
    if (!handlers_.stream) return kUnset;
    return handlers_.stream(*context, *request, *writer);
  }

 private:
  const FakeHandlers handlers_;
};

class FakeServer::Models final : public v1::ModelService::Service {
 public:
  explicit Models(FakeHandlers handlers) : handlers_(std::move(handlers)) {}

  grpc::Status ListModels(grpc::ServerContext*, const v1::ListModelsRequest*,
                          v1::ListModelsResponse* response) override {
    response->mutable_models()->Add(handlers_.models.begin(),
                                    handlers_.models.end());
    return grpc::Status::OK;
  }
  grpc::Status ListMethods(grpc::ServerContext*, const v1::ListMethodsRequest*,
                           v1::ListMethodsResponse* response) override {
    response->mutable_methods()->Add(handlers_.methods.begin(),
                                     handlers_.methods.end());
    return grpc::Status::OK;
  }
  grpc::Status GetModel(grpc::ServerContext*,
                        const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override {
    return Answer(request->model(), *response->mutable_model());
  }
  grpc::Status LoadModel(grpc::ServerContext*,
                         const v1::LoadModelRequest* request,
                         v1::LoadModelResponse* response) override {
    return Answer(request->model(), *response->mutable_model());
  }
  grpc::Status UnloadModel(grpc::ServerContext*,
                           const v1::UnloadModelRequest* request,
                           v1::UnloadModelResponse* response) override {
    return Answer(request->model(), *response->mutable_model());
  }

 private:
  grpc::Status Answer(const std::string& name, v1::Model& model) {
    return handlers_.model ? handlers_.model(name, model) : kUnset;
  }

  const FakeHandlers handlers_;
};

FakeServer::FakeServer(FakeHandlers handlers)
    : explanations_(std::make_unique<Explanations>(handlers)),
      models_(std::make_unique<Models>(handlers)) {
  grpc::EnableDefaultHealthCheckService(true);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(explanations_.get());
  builder.RegisterService(models_.get());
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeServer::~FakeServer() {
  // Handlers that wait for their caller are told to stop at once.
  server_->Shutdown(std::chrono::system_clock::now());
}

v1::Tensor MakeTensor(const std::string& name, std::vector<int64_t> shape,
                      const std::vector<float>& values) {
  v1::Tensor tensor;
  tensor.set_data(values.data(), values.size() * sizeof(float));
  Describe(tensor, name, v1::DATA_TYPE_FLOAT32, shape);
  return tensor;
}

v1::Tensor MakeIds(const std::string& name, const std::vector<int64_t>& ids) {
  v1::Tensor tensor;
  tensor.set_data(ids.data(), ids.size() * sizeof(int64_t));
  Describe(tensor, name, v1::DATA_TYPE_INT64,
           {static_cast<int64_t>(ids.size())});
  return tensor;
}

v1::ExplainResponse MakeResponse() {
  v1::ExplainResponse response;
  v1::ExplanationHeader& header = *response.mutable_header();
  header.set_model("sentiment-mamba");
  header.set_model_digest(std::string(64, 'a'));
  header.set_architecture("mamba");
  header.set_method("raw-attention");
  header.set_position(2);
  header.set_num_tokens(3);
  header.set_request_id("request-1");
  header.set_server_version("0.1.0");
  header.set_device("cpu");
  header.add_layers(0);
  const std::vector<std::string> pieces = {"A", " good", " film"};
  int begin = 0;
  for (int i = 0; i < 3; ++i) {
    v1::Token& token = *header.add_tokens();
    token.set_index(i);
    token.set_id(10 + i);
    token.set_piece(pieces[i]);
    token.set_piece_bytes(pieces[i]);
    token.set_begin(begin);
    token.set_end(begin += static_cast<int>(pieces[i].size()));
  }
  *response.add_tensors() = MakeTensor("attribution", {3}, {0.1f, 0.7f, 0.2f});
  *response.add_tensors() =
      MakeTensor("layers.0.attention", {3}, {0.1f, 0.7f, 0.2f});
  *response.add_tensors() = MakeIds("tokens", {10, 11, 12});
  v1::ExplanationSummary& summary = *response.mutable_summary();
  v1::LayerReport& layer = *summary.add_layers();
  layer.set_layer(0);
  layer.set_reconstruction_error(2.5e-7);
  summary.set_max_reconstruction_error(2.5e-7);
  summary.set_num_tensors(response.tensors_size());
  summary.mutable_target()->set_token_id(42);
  v1::Candidate& candidate = *summary.add_predictions();
  candidate.set_id(42);
  candidate.set_piece(" great");
  candidate.set_logit(3.5f);
  candidate.set_probability(0.75f);
  summary.mutable_times()->mutable_compute()->set_nanos(12000000);
  return response;
}

std::vector<v1::StreamExplainResponse> MakeStream(
    const v1::ExplainResponse& response, size_t chunk_bytes) {
  std::vector<v1::StreamExplainResponse> parts(2);
  *parts[0].mutable_header() = response.header();
  parts[1].mutable_progress()->set_done(1);
  parts[1].mutable_progress()->set_total(2);
  parts[1].mutable_progress()->set_unit("layer");
  for (const v1::Tensor& tensor : response.tensors()) {
    *parts.emplace_back().mutable_tensor() = tensor.header();
    for (size_t at = 0; at < tensor.data().size(); at += chunk_bytes) {
      v1::TensorChunk& chunk = *parts.emplace_back().mutable_chunk();
      chunk.set_name(tensor.header().name());
      chunk.set_offset(static_cast<int64_t>(at));
      chunk.set_data(tensor.data().substr(at, chunk_bytes));
    }
  }
  *parts.emplace_back().mutable_summary() = response.summary();
  return parts;
}

grpc::Status MakeError(grpc::StatusCode code, const std::string& reason,
                       const std::string& message,
                       const std::map<std::string, std::string>& violations,
                       double retry_seconds) {
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  google::rpc::ErrorInfo info;
  info.set_domain("limpid");
  info.set_reason(reason);
  details.add_details()->PackFrom(info);
  if (!violations.empty()) {
    google::rpc::BadRequest bad;
    for (const auto& [field, what] : violations) {
      auto& violation = *bad.add_field_violations();
      violation.set_field(field);
      violation.set_description(what);
    }
    details.add_details()->PackFrom(bad);
  }
  if (retry_seconds >= 0) {
    google::rpc::RetryInfo retry;
    const auto nanos = static_cast<int64_t>(retry_seconds * 1e9);
    retry.mutable_retry_delay()->set_seconds(nanos / 1000000000);
    retry.mutable_retry_delay()->set_nanos(nanos % 1000000000);
    details.add_details()->PackFrom(retry);
  }
  return grpc::Status(code, message, details.SerializeAsString());
}

}  // namespace limpid::testing
