// SPDX-License-Identifier: Apache-2.0
//
// limpid.v1.ExplanationService: validates, submits and returns; workers do the
// rest.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "limpid/v1/explanation.grpc.pb.h"
#include "server/attribution/method_spec.h"
#include "server/explain/engine.h"
#include "server/registry/model_registry.h"
#include "server/rpc/call.h"
#include "server/rpc/explain_flow.h"
#include "server/rpc/stream_call.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/validate.h"
#include "server/schedule/worker_pool.h"

namespace limpid {

// What the service works with; all outlive it.
struct ExplanationDeps {
  const Engine& engine;
  const ModelRegistry& registry;
  WorkerPool& pool;
  const CallServices& calls;
  std::vector<MethodSpec> methods;
  std::string server_version;
  int64_t max_unary_reply_bytes = int64_t{64} << 20;
  StreamLimits stream;
};

// Raw methods, so that bytes that are no message get an answer with details.
using RawExplanationService =
    v1::ExplanationService::WithRawCallbackMethod_Explain<
        v1::ExplanationService::WithRawCallbackMethod_StreamExplain<
            v1::ExplanationService::WithRawCallbackMethod_RenderHeatmap<
                v1::ExplanationService::Service>>>;

class ExplanationService final : public RawExplanationService {
 public:
  explicit ExplanationService(ExplanationDeps deps) : deps_(std::move(deps)) {}

  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* StreamExplain(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* RenderHeatmap(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;

 private:
  // A request that a worker may take: valid as far as can be told without the
  // engine, or invalid with a model that may find more wrong with it.
  struct Accepted {
    ValidatedRequest request;
    std::shared_ptr<const Model> lease;
    absl::Time when;
  };
  using Work = std::function<void(const absl::Status& admission, Accepted&)>;

  absl::StatusOr<std::shared_ptr<Accepted>> Accept(
      const v1::ExplainRequest& message, Call& call) const;
  // Queues `work`, which is called exactly once if that succeeds.
  absl::StatusOr<JobId> Submit(std::shared_ptr<Accepted> accepted, Call& call,
                               Work work) const;
  absl::Status Run(Accepted& accepted, bool unary, Call& call,
                   ReplyWriter& writer) const;

  const ExplanationDeps deps_;
};

}  // namespace limpid
