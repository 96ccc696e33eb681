// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/explain_flow.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/rpc/encode.h"
#include "server/rpc/encode_reply.h"

namespace limpid {
namespace {

// Estimates of time are rough. A request is refused by them only if it would
// miss its deadline by far.
constexpr double kHopeless = 4;

// Turns the engine's parts into messages.
class EncodingSink final : public ResultSink {
 public:
  EncodingSink(const FlowOptions& options, const EncodeOptions& encode,
               const Plan& plan, v1::Cost cost, Call& call, ReplyWriter& writer)
      : options_(options),
        encode_(encode),
        plan_(plan),
        cost_(std::move(cost)),
        call_(call),
        writer_(writer) {}

  absl::Status OnHeader(ResultHeader header) override {
    const Timer timer(busy_);
    header_ = EncodeHeader(header, plan_.model().info(),
                           {call_.request_id(), options_.server_version});
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
                            EncodeTensor(std::move(tensor), encode_));
    call_.explained.serialize += absl::Now() - begin;
    ++num_tensors_;
    return writer_.Tensor(std::move(encoded));
  }

  absl::Status OnSummary(ResultSummary summary) override {
    const Timer timer(busy_);
    call_.explained.compute = summary.compute_time;
    v1::ExplanationSummary out =
        EncodeSummary(summary, plan_.model().info(), header_);
    call_.explained.reconstruction_error = out.max_reconstruction_error();
    out.set_num_tensors(num_tensors_);
    *out.mutable_cost() = cost_;
    v1::StageTimes& times = *out.mutable_times();
    SetDuration(call_.explained.queue, *times.mutable_queue());
    SetDuration(call_.explained.compute, *times.mutable_compute());
    SetDuration(call_.explained.serialize, *times.mutable_serialize());
    done_ = true;
    return writer_.Summary(std::move(out));
  }

  bool done() const { return done_; }
  // Spent in here, on packing and on waiting for the reader.
  absl::Duration busy() const { return busy_; }

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

  const FlowOptions& options_;
  const EncodeOptions encode_;
  const Plan& plan_;
  const v1::Cost cost_;
  Call& call_;
  ReplyWriter& writer_;
  v1::ExplanationHeader header_;
  int32_t num_tensors_ = 0;
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

absl::Status CheckDeadline(const Cost& cost, CancelToken& cancel) {
  LIMPID_RETURN_IF_ERROR(cancel.Check());
  const absl::Duration left = cancel.deadline() - absl::Now();
  if (absl::Seconds(cost.compute_seconds) <= left * kHopeless) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kDeadlineExceeded, "DEADLINE_TOO_SHORT",
      absl::StrCat("the explanation would take about ", cost.compute_seconds,
                   " s, but ", absl::FormatDuration(left), " are left"));
}

absl::Status ReplyWithCost(const Plan& plan, v1::Cost cost,
                           ReplyWriter& writer) {
  v1::ExplanationHeader header;
  header.set_model(plan.model().info().name);
  header.set_method(plan.method());
  LIMPID_RETURN_IF_ERROR(writer.Header(std::move(header)));
  v1::ExplanationSummary summary;
  *summary.mutable_cost() = std::move(cost);
  return writer.Summary(std::move(summary));
}

}  // namespace

absl::Status RunExplanation(const FlowOptions& options,
                            const ValidatedRequest& request,
                            std::shared_ptr<const Model> model, Call& call,
                            ReplyWriter& writer) {
  const absl::Time planning = absl::Now();
  const absl::StatusOr<std::shared_ptr<const Plan>> planned =
      options.engine->MakePlan(request.request, std::move(model));
  call.explained.plan = absl::Now() - planning;
  LIMPID_RETURN_IF_ERROR(MergeStatus(request, planned.status()));
  const Plan& plan = **planned;
  call.explained.num_tokens = plan.num_tokens();
  call.explained.method = plan.method();
  const int64_t reply_bytes = EncodedReplyBytes(
      plan.cost().reply_bytes, plan.num_tokens(), request.request.attention,
      plan.model().info(), request.encode);
  const bool fits = reply_bytes <= options.max_unary_reply_bytes;
  Cost cost = plan.cost();
  cost.reply_bytes = reply_bytes;
  if (request.validate_only) {
    return ReplyWithCost(plan, EncodeCost(cost, fits), writer);
  }
  if (options.unary && !fits) {
    return TooLarge(reply_bytes, options.max_unary_reply_bytes);
  }
  LIMPID_RETURN_IF_ERROR(CheckDeadline(cost, call.cancel()));
  // A stream has no place for a tensor's elements as numbers.
  EncodeOptions encode = request.encode;
  encode.floats = encode.floats && options.unary;
  EncodingSink sink(options, encode, plan, EncodeCost(cost, fits), call,
                    writer);
  const absl::Time begin = absl::Now();
  const absl::Status status = options.engine->Run(plan, sink, call.cancel());
  if (call.explained.compute == absl::ZeroDuration()) {
    call.explained.compute = absl::Now() - begin - sink.busy();
  }
  if (status.ok() && !sink.done()) {
    return MakeError(absl::StatusCode::kInternal, "INTERNAL",
                     "the engine ended without a summary");
  }
  return status;
}

}  // namespace limpid
