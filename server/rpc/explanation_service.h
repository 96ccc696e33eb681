// SPDX-License-Identifier: Apache-2.0
//
// limpid.v1.ExplanationService: validates, submits and returns; workers do the
// rest.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "limpid/v1/explanation.grpc.pb.h"
#include "server/attribution/method_spec.h"
#include "server/explain/engine.h"
#include "server/registry/model_registry.h"
#include "server/rpc/call.h"
#include "server/rpc/explain_flow.h"
#include "server/rpc/flights.h"
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
  explicit ExplanationService(ExplanationDeps deps);

  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* StreamExplain(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* RenderHeatmap(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;

  // Replies to a call in the words of its protocol.
  using Answer = std::function<void(UnaryCall&, const v1::ExplainResponse&)>;
  // The way of every unary explanation, whatever protocol its caller speaks:
  // judged, planned, computed once with all that ask the same. The call is
  // failed, or `answer` is called once, now or on another thread.
  void Explain(const v1::ExplainRequest& message, UnaryCall* reactor,
               Answer answer);

 private:
  // A request that may wait for a worker.
  struct Accepted {
    PlannedExplanation planned;
    absl::Time when;
  };
  using UnaryEnd = std::function<void(const absl::Status& status,
                                      const ExplanationMetrics& explained)>;

  FlowOptions Flow(bool unary) const;
  absl::StatusOr<Accepted> Accept(const v1::ExplainRequest& message, bool unary,
                                  Call& call) const;
  // Runs a stream that was admitted, and gives the lease back.
  absl::Status RunStream(const absl::Status& admission, Accepted& accepted,
                         StreamCall& stream, int64_t device) const;
  // Queues a stream, which ends on a worker if that succeeds.
  absl::StatusOr<JobId> SubmitStream(Accepted accepted,
                                     StreamCall* stream) const;
  // Queues an explanation that `call` asks for, or leaves it to the thread of
  // its handler; `on_end` is called exactly once if that succeeds.
  absl::StatusOr<JobId> SubmitUnary(Accepted accepted, const Call& call,
                                    JobId id, const CancelToken& cancel,
                                    std::shared_ptr<ReplyWriter> writer,
                                    UnaryEnd on_end) const;
  // Joins or begins the computation of a request.
  void Fly(const std::string& key, Accepted accepted, UnaryCall* reactor,
           Answer answer);
  // Answers one of those who waited for a computation; `first`: the one who
  // began it.
  static void Land(UnaryCall* reactor, const Answer& answer, bool first,
                   const Flights::Result& result);

  const ExplanationDeps deps_;
  Flights flights_;
};

}  // namespace limpid
