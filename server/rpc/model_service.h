// SPDX-License-Identifier: Apache-2.0
//
// limpid.v1.ModelService: what there is, and what shall be resident.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "limpid/v1/model.grpc.pb.h"
#include "server/attribution/method_spec.h"
#include "server/registry/model_registry.h"
#include "server/rpc/call.h"
#include "server/rpc/unary_call.h"
#include "server/schedule/worker_pool.h"

namespace limpid {

// What the service works with; all outlive it.
struct ModelDeps {
  ModelRegistry& registry;
  WorkerPool& pool;  // loads models; not the one that computes
  const CallServices& calls;
  std::vector<MethodSpec> methods;
  std::vector<std::string> architectures;  // all that are built in
  int64_t max_tokens = 0;
};

using RawModelService = v1::ModelService::WithRawCallbackMethod_ListModels<
    v1::ModelService::WithRawCallbackMethod_GetModel<
        v1::ModelService::WithRawCallbackMethod_LoadModel<
            v1::ModelService::WithRawCallbackMethod_UnloadModel<
                v1::ModelService::WithRawCallbackMethod_ListMethods<
                    v1::ModelService::Service>>>>>;

// A caller that goes away does not stop a load or an unload.
class ModelService final : public RawModelService {
 public:
  explicit ModelService(ModelDeps deps) : deps_(std::move(deps)) {}

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListMethods(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;

  // The way of every load and unload, whatever protocol its caller speaks. The
  // call is failed, or `done` is called once as ModelRegistry does.
  void Load(const std::string& name, UnaryCall* reactor,
            ModelRegistry::Done done);
  void Unload(const std::string& name, UnaryCall* reactor,
              ModelRegistry::Done done);

 private:
  // On a thread for loads, once one is free.
  void Change(UnaryCall* reactor, std::function<void()> change);
  v1::Model Encode(const ModelStatus& status) const;
  // Answers once with the model, or with why not.
  template <typename Response>
  ModelRegistry::Done Answer(UnaryCall* reactor) const;

  const ModelDeps deps_;
};

}  // namespace limpid
