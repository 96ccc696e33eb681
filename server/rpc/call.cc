// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/call.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/rpc/status_map.h"
#include "server/schedule/admission_policy.h"

namespace limpid {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";
constexpr size_t kMaxRequestIdBytes = 128;
// gRPC's timer and our clock need not agree to the millisecond.
constexpr absl::Duration kDeadlineSlack = absl::Milliseconds(5);

absl::string_view FindRequestId(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find(kRequestIdKey);
  if (it == metadata.end()) return {};
  return {it->second.data(), it->second.size()};
}

absl::Time DeadlineOf(const grpc::CallbackServerContext& context,
                      absl::Time latest) {
  return std::min(latest, absl::FromChrono(context.deadline()));
}

}  // namespace

std::string MakeRequestId(absl::string_view given) {
  const auto printable = [](unsigned char c) { return c > 0x20 && c < 0x7F; };
  if (!given.empty() && given.size() <= kMaxRequestIdBytes &&
      std::all_of(given.begin(), given.end(), printable)) {
    return std::string(given);
  }
  thread_local std::mt19937_64 random{std::random_device{}()};
  return absl::StrFormat("%016x%016x", random(), random());
}

void CallTracker::Add() {
  {
    MutexLock lock(mutex_);
    ++num_calls_;
  }
  metrics_.AddInFlight(1);
}

void CallTracker::Remove() {
  metrics_.AddInFlight(-1);
  MutexLock lock(mutex_);
  if (--num_calls_ == 0) none_.notify_all();
}

bool CallTracker::WaitForNone(absl::Time limit) {
  MutexLock lock(mutex_);
  while (num_calls_ > 0) {
    if (!lock.WaitUntil(none_, absl::ToChronoTime(limit))) {
      return num_calls_ == 0;
    }
  }
  return true;
}

Call::Call(const CallServices& services, const RpcName& rpc,
           grpc::CallbackServerContext& context)
    : services_(services),
      rpc_(rpc),
      request_id_(MakeRequestId(FindRequestId(context))),
      start_(absl::Now()),
      cancel_(DeadlineOf(context, start_ + services.max_request_time)) {
  context.AddInitialMetadata(kRequestIdKey, request_id_);
  services_.metrics.RpcStarted(rpc_.type, rpc_.service, rpc_.method);
  services_.tracker.Add();
}

Call::~Call() { services_.tracker.Remove(); }

void Call::NoteClientGone() {
  client_gone_ = true;
  cancel_.Cancel();
  if (pool_ != nullptr) pool_->Cancel(job_);
}

void Call::NoteStarted() {
  services_.log.Write(LogLevel::kDebug, "request started",
                      {{"request_id", request_id_},
                       {"rpc", std::string(rpc_.method)},
                       {"model", explained.model}});
}

absl::Status Call::Explain(absl::Status status) const {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      if (absl::Now() + kDeadlineSlack >= cancel_.deadline()) {
        return MakeError(absl::StatusCode::kDeadlineExceeded,
                         "DEADLINE_EXCEEDED",
                         "the deadline passed before the reply was ready");
      }
      return client_gone_ ? status : DrainingStatus();
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown: {
      ErrorDetails details = GetErrorDetails(status);
      if (details.reason.empty()) details.reason = "INTERNAL";
      return MakeError(absl::StatusCode::kInternal,
                       absl::StrCat("internal error, request id ", request_id_,
                                    ": ", status.message()),
                       std::move(details));
    }
    default:
      return status;
  }
}

grpc::Status Call::End(absl::Status status) {
  status = Explain(std::move(status));
  const absl::Duration took = absl::Now() - start_;
  services_.metrics.RpcHandled(rpc_.type, rpc_.service, rpc_.method,
                               status.code(), took);
  explained.code = status.code();
  explained.request = took;
  if (rpc_.explains) services_.metrics.ExplanationEnded(explained);
  if (!status.ok() && explained.compute > absl::ZeroDuration()) {
    services_.metrics.ComputeWasted(explained.compute);
  }
  RequestLine line;
  line.request_id = request_id_;
  line.rpc = rpc_.method;
  line.model = explained.model == kUnknown ? "" : explained.model;
  line.method = explained.method == kUnknown ? "" : explained.method;
  line.code = status.code();
  if (!status.ok()) line.reason = ReasonOf(status);
  line.num_tokens = explained.num_tokens;
  line.total = took;
  line.queue = explained.queue;
  line.compute = explained.compute;
  line.serialize = explained.serialize;
  line.reply_bytes = explained.reply_bytes;
  services_.log.Request(line);
  return ToGrpcStatus(status, request_id_);
}

}  // namespace limpid
