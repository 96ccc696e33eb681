// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/inference_service.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/rpc/inference_reply.h"
#include "server/rpc/inference_request.h"
#include "server/rpc/raw_unary_handler.h"
#include "server/rpc/safe_text.h"

namespace limpid {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

constexpr char kInferenceService[] = "inference.GRPCInferenceService";
constexpr RpcName kServerLive = {"unary", kInferenceService, "ServerLive",
                                 false};
constexpr RpcName kServerReady = {"unary", kInferenceService, "ServerReady",
                                  false};
constexpr RpcName kModelReady = {"unary", kInferenceService, "ModelReady",
                                 false};
constexpr RpcName kServerMetadata = {"unary", kInferenceService,
                                     "ServerMetadata", false};
constexpr RpcName kModelMetadata = {"unary", kInferenceService, "ModelMetadata",
                                    false};
constexpr RpcName kModelInfer = {"unary", kInferenceService, "ModelInfer",
                                 true};
constexpr RpcName kRepositoryIndex = {"unary", kInferenceService,
                                      "RepositoryIndex", false};
constexpr RpcName kRepositoryModelLoad = {
    "unary", kInferenceService, "RepositoryModelLoad", false, Role::kAdmin};
constexpr RpcName kRepositoryModelUnload = {
    "unary", kInferenceService, "RepositoryModelUnload", false, Role::kAdmin};

// Sent by Triton's client with every unload.
constexpr char kUnloadDependents[] = "unload_dependents";

// A call whose request is read and handled; what goes wrong is its answer.
template <typename Message, typename Handle>
ServerUnaryReactor* Serve(const CallServices& calls, const RpcName& rpc,
                          CallbackServerContext& context,
                          const ByteBuffer& request, ByteBuffer& response,
                          Handle handle) {
  auto* const reactor = new UnaryCall(calls, rpc, context, response);
  reactor->Guard([&] {
    Message message;
    absl::Status status = reactor->call().Receive(request, message);
    if (status.ok()) status = handle(message, reactor);
    if (!status.ok()) reactor->Fail(status);
  });
  return reactor;
}

void CheckRepository(const std::string& name, Violations& violations) {
  if (name.empty()) return;
  violations.Add("repository_name", "must be empty: there is one repository");
}

// The model of a load or an unload.
template <typename Message>
absl::StatusOr<std::string> ReadModel(const Message& message,
                                      absl::string_view allowed) {
  Violations violations;
  CheckRepository(message.repository_name(), violations);
  if (message.model_name().empty()) violations.Add("model_name", "required");
  for (const auto& [name, value] : message.parameters()) {
    if (name == allowed) continue;
    violations.Add(absl::StrCat("parameters[\"", SafeText(name), "\"]"),
                   "no such parameter");
  }
  LIMPID_RETURN_IF_ERROR(violations.ToStatus());
  return message.model_name();
}

template <typename Response>
ModelRegistry::Done Tell(UnaryCall* reactor) {
  return [reactor](const absl::StatusOr<ModelStatus>& status) {
    if (!status.ok()) return reactor->Fail(status.status());
    reactor->call().explained.model = status->name;
    reactor->Reply(Response());
  };
}

}  // namespace

ServerUnaryReactor* InferenceService::ServerLive(CallbackServerContext* context,
                                                 const ByteBuffer* request,
                                                 ByteBuffer* response) {
  return Serve<inference::ServerLiveRequest>(
      deps_.calls, kServerLive, *context, *request, *response,
      [](const auto&, UnaryCall* reactor) {
        inference::ServerLiveResponse reply;
        reply.set_live(true);
        reactor->Reply(reply);
        return absl::OkStatus();
      });
}

ServerUnaryReactor* InferenceService::ServerReady(
    CallbackServerContext* context, const ByteBuffer* request,
    ByteBuffer* response) {
  return Serve<inference::ServerReadyRequest>(
      deps_.calls, kServerReady, *context, *request, *response,
      [this](const auto&, UnaryCall* reactor) {
        inference::ServerReadyResponse reply;
        reply.set_ready(deps_.ready());
        reactor->Reply(reply);
        return absl::OkStatus();
      });
}

ServerUnaryReactor* InferenceService::ModelReady(CallbackServerContext* context,
                                                 const ByteBuffer* request,
                                                 ByteBuffer* response) {
  return Serve<inference::ModelReadyRequest>(
      deps_.calls, kModelReady, *context, *request, *response,
      [this](const auto& message, UnaryCall* reactor) -> absl::Status {
        Violations violations;
        const std::string name =
            NameOf("version", message.name(), message.version(), violations);
        LIMPID_RETURN_IF_ERROR(violations.ToStatus());
        LIMPID_ASSIGN_OR_RETURN(const ModelStatus status,
                                deps_.registry.Get(name));
        inference::ModelReadyResponse reply;
        reply.set_ready(status.state == ModelState::kReady);
        reactor->Reply(reply);
        return absl::OkStatus();
      });
}

ServerUnaryReactor* InferenceService::ServerMetadata(
    CallbackServerContext* context, const ByteBuffer* request,
    ByteBuffer* response) {
  return Serve<inference::ServerMetadataRequest>(
      deps_.calls, kServerMetadata, *context, *request, *response,
      [this](const auto&, UnaryCall* reactor) {
        inference::ServerMetadataResponse reply;
        reply.set_name("limpid");
        reply.set_version(deps_.server_version);
        reply.add_extensions("model_repository");
        reactor->Reply(reply);
        return absl::OkStatus();
      });
}

ServerUnaryReactor* InferenceService::ModelMetadata(
    CallbackServerContext* context, const ByteBuffer* request,
    ByteBuffer* response) {
  return Serve<inference::ModelMetadataRequest>(
      deps_.calls, kModelMetadata, *context, *request, *response,
      [this](const auto& message, UnaryCall* reactor) -> absl::Status {
        Violations violations;
        const std::string name =
            NameOf("version", message.name(), message.version(), violations);
        LIMPID_RETURN_IF_ERROR(violations.ToStatus());
        LIMPID_ASSIGN_OR_RETURN(const auto lease, deps_.registry.Lease(name));
        LIMPID_ASSIGN_OR_RETURN(const ModelStatus status,
                                deps_.registry.Get(name));
        reactor->Reply(EncodeMetadata(lease->info(), status.versions));
        return absl::OkStatus();
      });
}

ServerUnaryReactor* InferenceService::ModelInfer(CallbackServerContext* context,
                                                 const ByteBuffer* request,
                                                 ByteBuffer* response) {
  return Serve<inference::ModelInferRequest>(
      deps_.calls, kModelInfer, *context, *request, *response,
      [this](const auto& message, UnaryCall* reactor) -> absl::Status {
        LIMPID_ASSIGN_OR_RETURN(
            InferenceRequest read,
            ToExplainRequest(
                message,
                [this](const char* field, const std::string& model,
                       const std::string& version, Violations& violations) {
                  return NameOf(field, model, version, violations);
                }));
        const v1::ExplainRequest explain = std::move(read.explain);
        deps_.explanations.Explain(
            explain, reactor,
            [read = std::move(read)](UnaryCall& call,
                                     const v1::ExplainResponse& explanation) {
              const auto reply = EncodeInference(explanation, read);
              reply.ok() ? call.Reply(*reply) : call.Fail(reply.status());
            });
        return absl::OkStatus();
      });
}

ServerUnaryReactor* InferenceService::RepositoryIndex(
    CallbackServerContext* context, const ByteBuffer* request,
    ByteBuffer* response) {
  return Serve<inference::RepositoryIndexRequest>(
      deps_.calls, kRepositoryIndex, *context, *request, *response,
      [this](const auto& message, UnaryCall* reactor) -> absl::Status {
        Violations violations;
        CheckRepository(message.repository_name(), violations);
        LIMPID_RETURN_IF_ERROR(violations.ToStatus());
        inference::RepositoryIndexResponse reply;
        for (const ModelStatus& status : deps_.registry.List()) {
          if (message.ready() && status.state != ModelState::kReady) continue;
          *reply.add_models() = EncodeIndexEntry(status);
        }
        reactor->Reply(reply);
        return absl::OkStatus();
      });
}

ServerUnaryReactor* InferenceService::RepositoryModelLoad(
    CallbackServerContext* context, const ByteBuffer* request,
    ByteBuffer* response) {
  return Serve<inference::RepositoryModelLoadRequest>(
      deps_.calls, kRepositoryModelLoad, *context, *request, *response,
      [this](const auto& message, UnaryCall* reactor) -> absl::Status {
        LIMPID_ASSIGN_OR_RETURN(const std::string name, ReadModel(message, ""));
        deps_.models.Load(
            name, reactor,
            Tell<inference::RepositoryModelLoadResponse>(reactor));
        return absl::OkStatus();
      });
}

ServerUnaryReactor* InferenceService::RepositoryModelUnload(
    CallbackServerContext* context, const ByteBuffer* request,
    ByteBuffer* response) {
  return Serve<inference::RepositoryModelUnloadRequest>(
      deps_.calls, kRepositoryModelUnload, *context, *request, *response,
      [this](const auto& message, UnaryCall* reactor) -> absl::Status {
        LIMPID_ASSIGN_OR_RETURN(const std::string name,
                                ReadModel(message, kUnloadDependents));
        deps_.models.Unload(
            name, reactor,
            Tell<inference::RepositoryModelUnloadResponse>(reactor));
        return absl::OkStatus();
      });
}

InferenceService::InferenceService(InferenceDeps deps)
    : deps_(std::move(deps)) {
  MarkMethodRawCallback(
      MethodIndex(kModelInfer.service, kModelInfer.method),
      new RawUnaryHandler([this](CallbackServerContext* context,
                                 const ByteBuffer* request,
                                 ByteBuffer* response) {
        return ModelInfer(context, request, response);
      }));
}

std::string InferenceService::NameOf(const char* field,
                                     const std::string& model,
                                     const std::string& version,
                                     Violations& violations) const {
  const auto status = deps_.registry.Get(model);
  // What is wrong with the name is said by whoever asks for the model.
  if (version.empty() || !status.ok()) return model;
  std::vector<std::string> known;
  for (const int64_t number : status->versions) {
    known.push_back(absl::StrCat(number));
  }
  if (known.empty()) known.push_back(kOnlyVersion);
  if (std::find(known.begin(), known.end(), version) == known.end()) {
    violations.Add(field, absl::StrCat("must be empty or one of ",
                                       absl::StrJoin(known, ", ")));
  }
  return status->versions.empty() ? model : absl::StrCat(model, "@", version);
}

}  // namespace limpid
