// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/model_service.h"

#include <utility>

#include "server/rpc/encode_reply.h"

namespace limpid {
namespace {

constexpr char kModelService[] = "limpid.v1.ModelService";
constexpr RpcName kListModels = {"unary", kModelService, "ListModels", false};
constexpr RpcName kGetModel = {"unary", kModelService, "GetModel", false};
constexpr RpcName kLoadModel = {"unary", kModelService, "LoadModel", false,
                                Role::kAdmin};
constexpr RpcName kUnloadModel = {"unary", kModelService, "UnloadModel", false,
                                  Role::kAdmin};
constexpr RpcName kListMethods = {"unary", kModelService, "ListMethods", false};

// Reads a message that names a model.
template <typename Message>
absl::StatusOr<std::string> ReadName(Call& call,
                                     const grpc::ByteBuffer& bytes) {
  Message message;
  LIMPID_RETURN_IF_ERROR(call.Receive(bytes, message));
  if (message.model().empty()) {
    Violations violations;
    violations.Add("model", "required");
    return violations.ToStatus();
  }
  return message.model();
}

}  // namespace

v1::Model ModelService::Encode(const ModelStatus& status) const {
  return EncodeModel(status, deps_.methods, deps_.max_tokens);
}

template <typename Response>
ModelRegistry::Done ModelService::Answer(UnaryCall* reactor) const {
  return [this, reactor](absl::StatusOr<ModelStatus> status) {
    reactor->Guard([&] {
      if (!status.ok()) return reactor->Fail(status.status());
      reactor->call().explained.model = status->name;
      Response response;
      *response.mutable_model() = Encode(*status);
      reactor->Reply(response);
    });
  };
}

void ModelService::Change(UnaryCall* reactor, std::function<void()> change) {
  const auto job = deps_.pool.Submit(
      {reactor->call().cancel(), [reactor, change = std::move(change)](
                                     const absl::Status& admission, int64_t) {
         if (!admission.ok()) return reactor->Fail(admission);
         change();
       }});
  if (!job.ok()) return reactor->Fail(job.status());
  reactor->call().set_job(deps_.pool, *job);
}

void ModelService::Load(const std::string& name, UnaryCall* reactor,
                        ModelRegistry::Done done) {
  Change(reactor, [this, name, done = std::move(done)] {
    deps_.registry.Load(name, done);
  });
}

void ModelService::Unload(const std::string& name, UnaryCall* reactor,
                          ModelRegistry::Done done) {
  Change(reactor, [this, name, done = std::move(done)] {
    deps_.registry.Unload(name, done);
  });
}

grpc::ServerUnaryReactor* ModelService::ListModels(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* const reactor =
      new UnaryCall(deps_.calls, kListModels, *context, *response);
  reactor->Guard([&] {
    v1::ListModelsRequest message;
    absl::Status parsed = reactor->call().Receive(*request, message);
    if (!parsed.ok()) return reactor->Fail(parsed);
    v1::ListModelsResponse reply;
    for (const ModelStatus& status : deps_.registry.List()) {
      *reply.add_models() = Encode(status);
    }
    reactor->Reply(reply);
  });
  return reactor;
}

grpc::ServerUnaryReactor* ModelService::GetModel(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* const reactor =
      new UnaryCall(deps_.calls, kGetModel, *context, *response);
  reactor->Guard([&] {
    const auto name = ReadName<v1::GetModelRequest>(reactor->call(), *request);
    if (!name.ok()) return reactor->Fail(name.status());
    Answer<v1::GetModelResponse>(reactor)(deps_.registry.Get(*name));
  });
  return reactor;
}

grpc::ServerUnaryReactor* ModelService::LoadModel(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* const reactor =
      new UnaryCall(deps_.calls, kLoadModel, *context, *response);
  reactor->Guard([&] {
    const auto name = ReadName<v1::LoadModelRequest>(reactor->call(), *request);
    if (!name.ok()) return reactor->Fail(name.status());
    Load(*name, reactor, Answer<v1::LoadModelResponse>(reactor));
  });
  return reactor;
}

grpc::ServerUnaryReactor* ModelService::UnloadModel(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* const reactor =
      new UnaryCall(deps_.calls, kUnloadModel, *context, *response);
  reactor->Guard([&] {
    const auto name =
        ReadName<v1::UnloadModelRequest>(reactor->call(), *request);
    if (!name.ok()) return reactor->Fail(name.status());
    Unload(*name, reactor, Answer<v1::UnloadModelResponse>(reactor));
  });
  return reactor;
}

grpc::ServerUnaryReactor* ModelService::ListMethods(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* const reactor =
      new UnaryCall(deps_.calls, kListMethods, *context, *response);
  reactor->Guard([&] {
    v1::ListMethodsRequest message;
    absl::Status parsed = reactor->call().Receive(*request, message);
    if (!parsed.ok()) return reactor->Fail(parsed);
    v1::ListMethodsResponse reply;
    for (const MethodSpec& method : deps_.methods) {
      *reply.add_methods() = EncodeMethod(method, deps_.architectures);
    }
    reactor->Reply(reply);
  });
  return reactor;
}

}  // namespace limpid
