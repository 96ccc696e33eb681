// SPDX-License-Identifier: Apache-2.0
//
// inference.GRPCInferenceService, the Open Inference Protocol: the explanations
// and models of our own services in the words that clients of KServe and Triton
// know. Translates and nothing else.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "inference/open_inference.grpc.pb.h"
#include "server/registry/model_registry.h"
#include "server/rpc/explanation_service.h"
#include "server/rpc/model_service.h"

namespace limpid {

// What the service works with; all outlive it.
struct InferenceDeps {
  ExplanationService& explanations;
  ModelService& models;
  const ModelRegistry& registry;
  const CallServices& calls;
  std::string server_version;
  // Whether the server has loaded its models and is not stopping. Thread-safe.
  std::function<bool()> ready;
};

using OpenInference = inference::GRPCInferenceService;
// Raw methods, so that bytes that are no message get an answer with details.
using RawRepository = OpenInference::WithRawCallbackMethod_RepositoryIndex<
    OpenInference::WithRawCallbackMethod_RepositoryModelLoad<
        OpenInference::WithRawCallbackMethod_RepositoryModelUnload<
            OpenInference::Service>>>;
using RawModels = OpenInference::WithRawCallbackMethod_ModelReady<
    OpenInference::WithRawCallbackMethod_ModelMetadata<
        OpenInference::WithRawCallbackMethod_ModelInfer<RawRepository>>>;
using RawInferenceService = OpenInference::WithRawCallbackMethod_ServerLive<
    OpenInference::WithRawCallbackMethod_ServerReady<
        OpenInference::WithRawCallbackMethod_ServerMetadata<RawModels>>>;

class InferenceService final : public RawInferenceService {
 public:
  explicit InferenceService(InferenceDeps deps);

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RepositoryIndex(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RepositoryModelLoad(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RepositoryModelUnload(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
      grpc::ByteBuffer* response) override;

 private:
  // See ModelNamer.
  std::string NameOf(const char* field, const std::string& model,
                     const std::string& version, Violations& violations) const;

  const InferenceDeps deps_;
};

}  // namespace limpid
