// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/explanation_service.h"

#include <utility>

#include "absl/time/clock.h"
#include "server/rpc/reply_writers.h"

namespace limpid {
namespace {

constexpr char kService[] = "limpid.v1.ExplanationService";
constexpr RpcName kExplain = {"unary", kService, "Explain", true};
constexpr RpcName kStreamExplain = {"server_stream", kService, "StreamExplain",
                                    true};
constexpr RpcName kRenderHeatmap = {"unary", kService, "RenderHeatmap", true};
constexpr char kDefaultMethod[] = "raw-attention";

// An unknown model's error with what else is wrong.
absl::Status WithViolations(const absl::Status& status,
                            const ValidatedRequest& request) {
  ErrorDetails details = GetErrorDetails(status);
  for (const auto* list : {&request.violations, &request.not_served}) {
    details.violations.insert(details.violations.end(), list->begin(),
                              list->end());
  }
  return MakeError(status.code(), status.message(), std::move(details));
}

}  // namespace

absl::StatusOr<std::shared_ptr<ExplanationService::Accepted>>
ExplanationService::Accept(const v1::ExplainRequest& message,
                           Call& call) const {
  auto accepted = std::make_shared<Accepted>();
  accepted->when = absl::Now();
  accepted->request = Validate(message, deps_.methods);
  const ValidatedRequest& request = accepted->request;
  if (message.method().empty()) {
    call.explained.method = kDefaultMethod;
  } else if (!request.request.method.empty()) {
    call.explained.method = request.request.method;
  }
  if (request.model.empty()) return request.ToStatus();
  auto lease = deps_.registry.Lease(request.model);
  if (lease.status().code() == absl::StatusCode::kNotFound) {
    return WithViolations(lease.status(), request);
  }
  call.explained.model = request.model;
  if (!lease.ok()) {
    LIMPID_RETURN_IF_ERROR(request.ToStatus());
    return lease.status();
  }
  accepted->lease = *std::move(lease);
  return accepted;
}

absl::StatusOr<JobId> ExplanationService::Submit(
    std::shared_ptr<Accepted> accepted, Call& call, Work work) const {
  const absl::Status own = accepted->request.ToStatus();
  auto id = deps_.pool.Submit(
      {call.cancel(), [accepted = std::move(accepted), &call,
                       work = std::move(work)](const absl::Status& admission) {
         call.explained.queue = absl::Now() - accepted->when;
         if (admission.ok()) call.NoteStarted();
         work(admission, *accepted);
       }});
  // What is known to be wrong does not get right by trying again.
  if (!id.ok() && !own.ok()) return own;
  return id;
}

absl::Status ExplanationService::Run(Accepted& accepted, bool unary, Call& call,
                                     ReplyWriter& writer) const {
  FlowOptions options;
  options.engine = &deps_.engine;
  options.server_version = deps_.server_version;
  options.max_unary_reply_bytes = deps_.max_unary_reply_bytes;
  options.unary = unary;
  try {
    return RunExplanation(options, accepted.request, std::move(accepted.lease),
                          call, writer);
  } catch (...) {
    return StatusOfException();
  }
}

grpc::ServerUnaryReactor* ExplanationService::Explain(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* const reactor =
      new UnaryCall(deps_.calls, kExplain, *context, *response);
  reactor->Guard([&] {
    v1::ExplainRequest message;
    absl::Status parsed = reactor->call().Receive(*request, message);
    if (!parsed.ok()) return reactor->Fail(parsed);
    auto accepted = Accept(message, reactor->call());
    if (!accepted.ok()) return reactor->Fail(accepted.status());
    const auto job =
        Submit(*std::move(accepted), reactor->call(),
               [this, reactor](const absl::Status& admission, Accepted& work) {
                 UnaryWriter writer;
                 const absl::Status status =
                     admission.ok() ? Run(work, true, reactor->call(), writer)
                                    : admission;
                 work.lease.reset();
                 status.ok() ? reactor->Reply(writer.response())
                             : reactor->Fail(status);
               });
    if (!job.ok()) return reactor->Fail(job.status());
    reactor->call().set_job(deps_.pool, *job);
  });
  return reactor;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ExplanationService::StreamExplain(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  StreamCall* const reactor =
      StreamCall::Create(deps_.calls, kStreamExplain, deps_.stream, *context);
  reactor->Guard([&] {
    v1::ExplainRequest message;
    absl::Status parsed = reactor->call().Receive(*request, message);
    if (!parsed.ok()) return reactor->End(parsed);
    auto accepted = Accept(message, reactor->call());
    if (!accepted.ok()) return reactor->End(accepted.status());
    const auto job =
        Submit(*std::move(accepted), reactor->call(),
               [this, reactor](const absl::Status& admission, Accepted& work) {
                 StreamWriter writer(*reactor);
                 absl::Status status =
                     admission.ok() ? Run(work, false, reactor->call(), writer)
                                    : admission;
                 work.lease.reset();
                 reactor->End(std::move(status));
               });
    if (!job.ok()) return reactor->End(job.status());
    reactor->call().set_job(deps_.pool, *job);
  });
  return reactor;
}

grpc::ServerUnaryReactor* ExplanationService::RenderHeatmap(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* const reactor =
      new UnaryCall(deps_.calls, kRenderHeatmap, *context, *response);
  reactor->Guard([&] {
    v1::RenderHeatmapRequest message;
    absl::Status parsed = reactor->call().Receive(*request, message);
    if (!parsed.ok()) return reactor->Fail(parsed);
    auto accepted = Accept(ToExplainRequest(message), reactor->call());
    if (!accepted.ok()) return reactor->Fail(accepted.status());
    const auto job =
        Submit(*std::move(accepted), reactor->call(),
               [this, reactor](const absl::Status& admission, Accepted& work) {
                 HeatmapWriter writer;
                 const absl::Status status =
                     admission.ok() ? Run(work, true, reactor->call(), writer)
                                    : admission;
                 work.lease.reset();
                 if (!status.ok()) return reactor->Fail(status);
                 const auto picture = writer.Draw();
                 picture.ok() ? reactor->Reply(*picture)
                              : reactor->Fail(picture.status());
               });
    if (!job.ok()) return reactor->Fail(job.status());
    reactor->call().set_job(deps_.pool, *job);
  });
  return reactor;
}

}  // namespace limpid
