// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/explain_flow.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/rpc/encode.h"
#include "server/rpc/encode_reply.h"

namespace limpid {
namespace {

// Turns the engine's parts into messages.
class EncodingSink final : public ResultSink {
 public:
  EncodingSink(const FlowOptions& options, const PlannedExplanation& planned,
               const std::string& request_id, ExplanationMetrics& explained,
               ReplyWriter& writer)
      : options_(options),
        planned_(planned),
        plan_(*planned.plan),
        request_id_(request_id),
        explained_(explained),
        writer_(writer) {}

  absl::Status OnHeader(ResultHeader header) override {
    const Timer timer(busy_);
    header_ = EncodeHeader(header, plan_.model().info(),
                           {request_id_, options_.server_version});
    return writer_.Header(header_);
  }

  absl::Status OnProgress(int64_t done, int64_t total,
                          const char* unit) override {
    const Timer timer(busy_);
    v1::Progress progress;
    progress.set_done(static_cast<int32_t>(done));
    progress.set_total(static_cast<int32_t>(total));
    progress.set_unit(unit);
    return writer_.Progress(progress);
  }

  absl::Status OnTensor(NamedTensor tensor) override {
    const Timer timer(busy_);
    const absl::Time begin = absl::Now();
    LIMPID_ASSIGN_OR_RETURN(v1::Tensor encoded,
                            EncodeTensor(std::move(tensor), planned_.encode));
    explained_.serialize += absl::Now() - begin;
    ++num_tensors_;
    return writer_.Tensor(std::move(encoded));
  }

  absl::Status OnSummary(ResultSummary summary) override {
    const Timer timer(busy_);
    NoteComputed();
    v1::ExplanationSummary out =
        EncodeSummary(summary, plan_.model().info(), header_);
    explained_.reconstruction_error = out.max_reconstruction_error();
    out.set_num_tensors(num_tensors_);
    *out.mutable_cost() = EncodeCost(planned_.cost, planned_.fits_unary);
    v1::StageTimes& times = *out.mutable_times();
    SetDuration(explained_.queue, *times.mutable_queue());
    SetDuration(explained_.compute, *times.mutable_compute());
    SetDuration(explained_.serialize, *times.mutable_serialize());
    done_ = true;
    return writer_.Summary(std::move(out));
  }

  bool Restart() override {
    if (!writer_.Restart()) return false;
    header_.Clear();
    num_tensors_ = 0;
    done_ = false;
    return true;
  }

  // How the explanation has ended after the engine's work did with `status`.
  absl::Status Conclude(const absl::Status& status) {
    if (explained_.compute == absl::ZeroDuration()) NoteComputed();
    if (status.ok() && !done_) {
      return MakeError(absl::StatusCode::kInternal, "INTERNAL",
                       "the engine ended without a summary");
    }
    return status;
  }

 private:
  class Timer {
   public:
    explicit Timer(absl::Duration& total)
        : total_(total), begin_(absl::Now()) {}
    ~Timer() { total_ += absl::Now() - begin_; }

   private:
    absl::Duration& total_;
    const absl::Time begin_;
  };

  // The engine's time until now, results on the host included.
  void NoteComputed() { explained_.compute = absl::Now() - begin_ - busy_; }

  const FlowOptions& options_;
  const PlannedExplanation& planned_;
  const Plan& plan_;
  const std::string& request_id_;
  ExplanationMetrics& explained_;
  ReplyWriter& writer_;
  v1::ExplanationHeader header_;
  int32_t num_tensors_ = 0;
  const absl::Time begin_ = absl::Now();
  // Spent in here, on packing and on waiting for the reader.
  absl::Duration busy_;
  bool done_ = false;
};

absl::Status TooLarge(int64_t need, int64_t limit) {
  ErrorDetails details;
  details.reason = "REPLY_TOO_LARGE";
  details.metadata["reply_bytes"] = absl::StrCat(need);
  details.metadata["limit_bytes"] = absl::StrCat(limit);
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("the reply may take ", need,
                                " bytes, a unary reply at most ", limit,
                                "; use StreamExplain, or ask for less"),
                   std::move(details));
}

}  // namespace

absl::Status WriteCost(const PlannedExplanation& planned, ReplyWriter& writer) {
  v1::ExplanationHeader header;
  header.set_model(planned.plan->model().info().name);
  header.set_method(planned.plan->method());
  LIMPID_RETURN_IF_ERROR(writer.Header(std::move(header)));
  v1::ExplanationSummary summary;
  *summary.mutable_cost() = EncodeCost(planned.cost, planned.fits_unary);
  return writer.Summary(std::move(summary));
}

absl::StatusOr<PlannedExplanation> PlanExplanation(
    const FlowOptions& options, const ValidatedRequest& request,
    std::shared_ptr<const Model> model, ExplanationMetrics& explained) {
  const absl::Time begin = absl::Now();
  const absl::StatusOr<std::shared_ptr<const Plan>> made =
      options.engine->MakePlan(request.request, std::move(model));
  explained.plan = absl::Now() - begin;
  LIMPID_RETURN_IF_ERROR(MergeStatus(request, made.status()));
  const Plan& plan = **made;
  explained.num_tokens = plan.num_tokens();
  explained.method = plan.method();
  PlannedExplanation planned;
  planned.plan = *made;
  planned.validate_only = request.validate_only;
  planned.cost = plan.cost();
  planned.cost.reply_bytes = EncodedReplyBytes(
      plan.cost().reply_bytes, plan.num_tokens(), request.request.attention,
      plan.model().info(), request.encode);
  planned.fits_unary =
      planned.cost.reply_bytes <= options.max_unary_reply_bytes;
  if (options.unary && !planned.fits_unary && !planned.validate_only) {
    return TooLarge(planned.cost.reply_bytes, options.max_unary_reply_bytes);
  }
  planned.encode = request.encode;
  // A stream has no place for a tensor's elements as numbers.
  planned.encode.floats = planned.encode.floats && options.unary;
  return planned;
}

void RunExplanations(const FlowOptions& options,
                     const std::vector<FlowMember>& members, int64_t device) {
  std::vector<std::unique_ptr<EncodingSink>> sinks;
  std::vector<BatchMember> batch;
  for (const FlowMember& member : members) {
    sinks.push_back(std::make_unique<EncodingSink>(
        options, member.planned, member.request_id, member.explained,
        member.writer));
    batch.push_back(
        {member.planned.plan.get(), sinks.back().get(), member.cancel,
         [sink = sinks.back().get(), &member](const absl::Status& status) {
           member.done(sink->Conclude(status));
         }});
  }
  options.engine->RunBatch(batch, device);
}

absl::Status RunExplanation(const FlowOptions& options,
                            const PlannedExplanation& planned,
                            const std::string& request_id,
                            const CancelToken& cancel,
                            ExplanationMetrics& explained, ReplyWriter& writer,
                            int64_t device) {
  EncodingSink sink(options, planned, request_id, explained, writer);
  return sink.Conclude(
      options.engine->Run(*planned.plan, sink, cancel, device));
}

}  // namespace limpid
