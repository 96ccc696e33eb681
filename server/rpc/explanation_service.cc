// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/explanation_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/rpc/raw_unary_handler.h"
#include "server/rpc/reply_writers.h"
#include "server/rpc/unary_work.h"
#include "server/schedule/admission_policy.h"

namespace limpid {
namespace {

constexpr char kExplanationService[] = "limpid.v1.ExplanationService";
constexpr RpcName kExplain = {"unary", kExplanationService, "Explain", true};
constexpr RpcName kStreamExplain = {"server_stream", kExplanationService,
                                    "StreamExplain", true};
constexpr RpcName kRenderHeatmap = {"unary", kExplanationService,
                                    "RenderHeatmap", true};
constexpr char kDefaultMethod[] = "raw-attention";

constexpr absl::Duration kRetrySharedAfter = absl::Milliseconds(10);

Ticket MakeTicket(const PlannedExplanation& planned, const Call& call,
                  JobId id) {
  Ticket ticket;
  ticket.id = id;
  ticket.client = call.client();
  if (planned.validate_only) return ticket;
  const Model& model = planned.plan->model();
  ticket.model = model.info().name;
  ticket.devices = &model.devices();
  ticket.seconds = planned.cost.compute_seconds;
  ticket.bytes = planned.cost.peak_bytes;
  return ticket;
}

// The same with what lets it share a batch, where that pays.
Ticket MakeUnaryTicket(const PlannedExplanation& planned, const Call& call,
                       JobId id) {
  Ticket ticket = MakeTicket(planned, call, id);
  const Plan& plan = *planned.plan;
  ticket.batch = {plan.batch_group(), plan.num_tokens()};
  return ticket;
}

// What a computation depends on. Equal requests that were spelled differently
// may have different keys; they are computed twice.
std::string FlightKey(const v1::ExplainRequest& message, const Plan& plan) {
  return absl::StrCat(plan.model().info().digest, message.SerializeAsString());
}

// Its deadline had passed before somebody with more time came, too late to move
// it.
absl::Status EndedTooEarly() {
  ErrorDetails details;
  details.reason = "SHARED_WORK_ENDED";
  details.retry_after = kRetrySharedAfter;
  return MakeError(absl::StatusCode::kUnavailable,
                   "the identical request that was being computed ran out of "
                   "its time; try again",
                   std::move(details));
}

// An unknown model's error with what else is wrong.
absl::Status WithViolations(const absl::Status& status,
                            const ValidatedRequest& request) {
  ErrorDetails details = GetErrorDetails(status);
  details.violations.insert(details.violations.end(),
                            request.violations.begin(),
                            request.violations.end());
  return MakeError(status.code(), status.message(), std::move(details));
}

}  // namespace

ExplanationService::ExplanationService(ExplanationDeps deps)
    : deps_(std::move(deps)), flights_(deps_.pool) {
  using Method = grpc::ServerUnaryReactor* (
      ExplanationService::*)(grpc::CallbackServerContext*,
                             const grpc::ByteBuffer*, grpc::ByteBuffer*);
  const auto run = [this](const RpcName& rpc, Method method) {
    MarkMethodRawCallback(MethodIndex(rpc.service, rpc.method),
                          new RawUnaryHandler(std::bind_front(method, this)));
  };
  run(kExplain, &ExplanationService::Explain);
  run(kRenderHeatmap, &ExplanationService::RenderHeatmap);
}

FlowOptions ExplanationService::Flow(bool unary) const {
  return {&deps_.engine, deps_.server_version, deps_.max_unary_reply_bytes,
          unary};
}

absl::StatusOr<ExplanationService::Accepted> ExplanationService::Accept(
    const v1::ExplainRequest& message, bool unary, Call& call) const {
  Accepted accepted;
  accepted.when = absl::Now();
  const ValidatedRequest request = Validate(message, deps_.methods);
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
  // Of NAME@VERSION the model that serves it.
  call.explained.model = lease.ok() ? (*lease)->info().name : request.model;
  if (!lease.ok()) {
    LIMPID_RETURN_IF_ERROR(request.ToStatus());
    return lease.status();
  }
  LIMPID_ASSIGN_OR_RETURN(
      accepted.planned,
      PlanExplanation(Flow(unary), request, *std::move(lease), call.explained));
  return accepted;
}

absl::Status ExplanationService::RunStream(const absl::Status& admission,
                                           Accepted& accepted,
                                           StreamCall& stream,
                                           int64_t device) const {
  Call& call = stream.call();
  absl::Status status = admission;
  if (status.ok()) try {
      StreamWriter writer(stream);
      status =
          accepted.planned.validate_only
              ? WriteCost(accepted.planned, writer)
              : RunExplanation(Flow(false), accepted.planned, call.request_id(),
                               call.cancel(), call.explained, writer, device);
    } catch (...) {
      status = StatusOfException();
    }
  accepted.planned.plan.reset();
  return status;
}

absl::StatusOr<JobId> ExplanationService::SubmitStream(
    Accepted accepted, StreamCall* stream) const {
  Call& call = stream->call();
  const JobId id = NewJobId();
  const Ticket ticket = MakeTicket(accepted.planned, call, id);
  return deps_.pool.Submit(
      {call.cancel(),
       [this, id, stream,
        accepted = std::make_shared<Accepted>(std::move(accepted))](
           const absl::Status& admission, int64_t device) {
         Call& call = stream->call();
         call.explained.queue = absl::Now() - accepted->when;
         if (admission.ok()) {
           LogStarted(deps_.calls, kStreamExplain, call.request_id(),
                      call.explained.model);
         }
         // Who reads slowly holds no worker.
         stream->set_on_wait([this, id](bool waits) {
           waits ? deps_.pool.Pause(id) : deps_.pool.Resume(id);
         });
         stream->End(RunStream(admission, *accepted, *stream, device));
       },
       ticket});
}

absl::StatusOr<JobId> ExplanationService::SubmitUnary(
    Accepted accepted, const Call& call, JobId id, const CancelToken& cancel,
    std::shared_ptr<ReplyWriter> writer, UnaryEnd on_end) const {
  const Ticket ticket = MakeUnaryTicket(accepted.planned, call, id);
  UnaryWork::Parts parts;
  parts.flow = Flow(true);
  parts.planned = std::move(accepted.planned);
  parts.request_id = call.request_id();
  parts.cancel = cancel;
  parts.explained = call.explained;
  parts.writer = std::move(writer);
  // The call may be gone before its work begins.
  parts.on_start = [this, rpc = call.rpc(), request_id = call.request_id(),
                    model = call.explained.model] {
    LogStarted(deps_.calls, rpc, request_id, model);
  };
  parts.on_end = std::move(on_end);
  auto work = std::make_shared<UnaryWork>(std::move(parts), accepted.when);
  return deps_.pool.Submit(
      {cancel,
       [work](const absl::Status& admission, int64_t device) {
         work->Run(admission, device);
       },
       ticket, work},
      RawUnaryHandler::own_turn());
}

void ExplanationService::Land(UnaryCall* reactor, const Answer& answer,
                              bool first, const Flights::Result& result) {
  Call& call = reactor->call();
  ExplanationMetrics& explained = call.explained;
  if (first) {
    explained = result.explained;
  } else {
    explained.reconstruction_error = result.explained.reconstruction_error;
  }
  if (!first && absl::IsDeadlineExceeded(result.status) &&
      call.cancel().Check().ok()) {
    return reactor->Fail(EndedTooEarly());
  }
  if (!result.status.ok()) return reactor->Fail(result.status);
  reactor->Guard([&] {
    if (first) return answer(*reactor, result.response);
    v1::ExplainResponse own = result.response;
    own.mutable_header()->set_request_id(call.request_id());
    answer(*reactor, own);
  });
}

void ExplanationService::Fly(const std::string& key, Accepted accepted,
                             UnaryCall* reactor, Answer answer) {
  Call& call = reactor->call();
  // Who comes this late would join work that is about to be cancelled.
  if (deps_.pool.load().draining) return reactor->Fail(DrainingStatus());
  const Flights::Seat seat =
      flights_.Board(key, call.cancel().deadline(),
                     [reactor, answer = std::move(answer)](
                         bool first, const Flights::Result& result) {
                       Land(reactor, answer, first, result);
                     });
  call.set_on_gone([this, seat, reactor] {
    if (flights_.Leave(seat)) reactor->Fail(reactor->call().cancel().Check());
  });
  if (!seat.first) return deps_.calls.metrics.RequestShared();
  const auto& flight = seat.flight;
  auto writer = std::make_shared<UnaryWriter>();
  const auto job = SubmitUnary(
      std::move(accepted), call, flight->job, flight->cancel, writer,
      [this, flight, writer](const absl::Status& status,
                             const ExplanationMetrics& explained) {
        Flights::Result result;
        result.status = status;
        result.explained = explained;
        result.response = std::move(*writer).response();
        // Of those who wait, the one who began it accounts for its time.
        if (!flights_.End(flight, result) && !status.ok()) {
          deps_.calls.metrics.ComputeWasted(explained.compute);
        }
      });
  if (job.ok()) return;
  Flights::Result refused;
  refused.explained = call.explained;
  refused.status = job.status();
  flights_.End(flight, refused);
}

void ExplanationService::Explain(const v1::ExplainRequest& message,
                                 UnaryCall* reactor, Answer answer) {
  auto accepted = Accept(message, true, reactor->call());
  if (!accepted.ok()) return reactor->Fail(accepted.status());
  const PlannedExplanation& planned = accepted->planned;
  if (!planned.validate_only) {
    const std::string key = FlightKey(message, *planned.plan);
    return Fly(key, *std::move(accepted), reactor, std::move(answer));
  }
  UnaryWriter writer;
  const absl::Status status = WriteCost(planned, writer);
  if (!status.ok()) return reactor->Fail(status);
  answer(*reactor, writer.response());
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
    Explain(message, reactor,
            [](UnaryCall& call, const v1::ExplainResponse& reply) {
              call.Reply(reply);
            });
  });
  return reactor;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ExplanationService::StreamExplain(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  StreamCall* const reactor =
      StreamCall::Create(deps_.calls, kStreamExplain, deps_.stream, *context);
  reactor->Guard([&] {
    Call& call = reactor->call();
    v1::ExplainRequest message;
    absl::Status parsed = call.Receive(*request, message);
    if (!parsed.ok()) return reactor->End(parsed);
    auto accepted = Accept(message, false, call);
    if (!accepted.ok()) return reactor->End(accepted.status());
    const auto job = SubmitStream(*std::move(accepted), reactor);
    if (!job.ok()) return reactor->End(job.status());
    call.set_job(deps_.pool, *job);
  });
  return reactor;
}

grpc::ServerUnaryReactor* ExplanationService::RenderHeatmap(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* const reactor =
      new UnaryCall(deps_.calls, kRenderHeatmap, *context, *response);
  reactor->Guard([&] {
    Call& call = reactor->call();
    v1::RenderHeatmapRequest message;
    absl::Status parsed = call.Receive(*request, message);
    if (!parsed.ok()) return reactor->Fail(parsed);
    auto accepted = Accept(ToExplainRequest(message), true, call);
    if (!accepted.ok()) return reactor->Fail(accepted.status());
    auto writer = std::make_shared<HeatmapWriter>();
    const auto job = SubmitUnary(
        *std::move(accepted), call, NewJobId(), call.cancel(), writer,
        [reactor, writer](const absl::Status& status,
                          const ExplanationMetrics& explained) {
          reactor->call().explained = explained;
          if (!status.ok()) return reactor->Fail(status);
          reactor->Guard([&] {
            const auto picture = writer->Draw();
            picture.ok() ? reactor->Reply(*picture)
                         : reactor->Fail(picture.status());
          });
        });
    if (!job.ok()) return reactor->Fail(job.status());
    call.set_job(deps_.pool, *job);
  });
  return reactor;
}

}  // namespace limpid
