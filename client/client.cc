// SPDX-License-Identifier: Apache-2.0
#include "client/client.h"

#include <utility>

#include "client/client_state.h"
#include "client/decode.h"

namespace limpid {
namespace {

absl::StatusOr<Explanation> Stream(ClientState& state,
                                   const v1::ExplainRequest& request,
                                   const StreamObserver& observer,
                                   absl::Time deadline) {
  absl::StatusOr<Explanation> result = absl::UnknownError("no reply");
  bool decoded = false;
  const absl::Status status =
      state.Run(deadline, [&](grpc::ClientContext& context) {
        StreamAssembler assembler(observer);
        const auto reader =
            state.explanations->StreamExplain(&context, request);
        absl::Status damage;
        bool heard = false;
        for (v1::StreamExplainResponse part; reader->Read(&part);) {
          heard = true;
          damage = assembler.Add(std::move(part));
          if (!damage.ok()) {
            context.TryCancel();
            break;
          }
        }
        grpc::Status end = reader->Finish();
        if (!damage.ok()) {
          result = damage;
          decoded = true;
        } else if (end.ok()) {
          result = assembler.Finish();
          decoded = true;
        }
        return std::make_pair(std::move(end), !heard);
      });
  // Damage goes before the CANCELLED that ending the stream made of it.
  if (decoded) return result;
  return status;
}

}  // namespace

Client::Client(std::unique_ptr<ClientState> state) : state_(std::move(state)) {}

Client::~Client() {
  Cancel();
  std::unique_lock<std::mutex> lock(state_->mutex);
  state_->wake.wait(lock, [this] { return state_->num_async == 0; });
}

absl::StatusOr<std::unique_ptr<Client>> Client::Create(
    const ClientOptions& options) {
  absl::StatusOr<Connection> connection = Connect(options);
  if (!connection.ok()) return connection.status();
  auto state = std::make_unique<ClientState>();
  state->options = options;
  state->connection = *std::move(connection);
  const auto& channel = state->connection.channel;
  state->explanations = v1::ExplanationService::NewStub(channel);
  state->models = v1::ModelService::NewStub(channel);
  state->health = grpc::health::v1::Health::NewStub(channel);
  return std::unique_ptr<Client>(new Client(std::move(state)));
}

absl::StatusOr<std::vector<v1::Model>> Client::ListModels() {
  v1::ListModelsResponse response;
  const absl::Status status =
      state_->Unary(*state_->models, &v1::ModelService::Stub::ListModels,
                    v1::ListModelsRequest(), &response, state_->Deadline());
  if (!status.ok()) return status;
  return std::vector<v1::Model>(response.models().begin(),
                                response.models().end());
}

absl::StatusOr<v1::Model> Client::GetModel(const std::string& name) {
  return state_->OneModel(&v1::ModelService::Stub::GetModel, name);
}

absl::StatusOr<v1::Model> Client::LoadModel(const std::string& name) {
  return state_->OneModel(&v1::ModelService::Stub::LoadModel, name);
}

absl::StatusOr<v1::Model> Client::UnloadModel(const std::string& name) {
  return state_->OneModel(&v1::ModelService::Stub::UnloadModel, name);
}

absl::StatusOr<std::vector<v1::Method>> Client::ListMethods() {
  v1::ListMethodsResponse response;
  const absl::Status status =
      state_->Unary(*state_->models, &v1::ModelService::Stub::ListMethods,
                    v1::ListMethodsRequest(), &response, state_->Deadline());
  if (!status.ok()) return status;
  return std::vector<v1::Method>(response.methods().begin(),
                                 response.methods().end());
}

absl::StatusOr<std::string> Client::CheckHealth(const std::string& service) {
  using grpc::health::v1::Health;
  using grpc::health::v1::HealthCheckResponse;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  HealthCheckResponse response;
  const absl::Status status =
      state_->Unary(*state_->health, &Health::Stub::Check, request, &response,
                    state_->Deadline());
  if (!status.ok()) return status;
  const std::string name =
      HealthCheckResponse::ServingStatus_Name(response.status());
  return name.empty() ? "UNKNOWN" : name;
}

absl::StatusOr<Explanation> Client::Explain(const v1::ExplainRequest& request) {
  const absl::Time deadline = state_->Deadline();
  v1::ExplainResponse response;
  const absl::Status status = state_->Unary(
      *state_->explanations, &v1::ExplanationService::Stub::Explain, request,
      &response, deadline);
  if (status.ok()) return DecodeResponse(std::move(response));
  if (absl::IsFailedPrecondition(status) &&
      GetErrorReport(status).reason == "REPLY_TOO_LARGE") {
    return Stream(*state_, request, {}, deadline);
  }
  return status;
}

absl::StatusOr<Explanation> Client::StreamExplain(
    const v1::ExplainRequest& request, const StreamObserver& observer) {
  return Stream(*state_, request, observer, state_->Deadline());
}

void Client::Cancel() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->cancelled = true;
  for (grpc::ClientContext* context : state_->running) context->TryCancel();
  for (grpc::Alarm* alarm : state_->alarms) alarm->Cancel();
  state_->wake.notify_all();
}

}  // namespace limpid
