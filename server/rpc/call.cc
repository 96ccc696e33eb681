// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/call.h"

#include <algorithm>
#include <iterator>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "server/rpc/caller_address.h"
#include "server/rpc/parse.h"
#include "server/rpc/status_map.h"
#include "server/schedule/admission_policy.h"

namespace limpid {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";
constexpr char kTraceKey[] = "traceparent";
constexpr char kAuthorizationKey[] = "authorization";
constexpr char kForwardedKey[] = "x-forwarded-for";
constexpr char kTimingKey[] = "server-timing";
constexpr size_t kMaxRequestIdBytes = 128;
// gRPC's timer and our clock need not agree to the millisecond.
constexpr absl::Duration kDeadlineSlack = absl::Milliseconds(5);

// The value of a key that comes at most once, or nothing.
absl::string_view Find(const grpc::CallbackServerContext& context,
                       const char* key) {
  const auto [first, last] = context.client_metadata().equal_range(key);
  if (first == last || std::next(first) != last) return {};
  return {first->second.data(), first->second.size()};
}

// As the HTTP header of that name.
std::string ServerTiming(absl::Duration total, const ExplanationMetrics& e) {
  const auto stage = [](const char* name, absl::Duration took) {
    return absl::StrFormat("%s;dur=%.3f", name,
                           absl::ToDoubleMilliseconds(took));
  };
  return absl::StrJoin({stage("total", total), stage("queue", e.queue),
                        stage("plan", e.plan), stage("compute", e.compute),
                        stage("serialize", e.serialize), stage("send", e.send)},
                       ", ");
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
      context_(context),
      request_id_(MakeRequestId(Find(context, kRequestIdKey))),
      trace_(ContinueTrace(Find(context, kTraceKey))),
      start_(absl::Now()),
      cancel_(DeadlineOf(context, start_ + services.max_request_time)) {
  context.AddInitialMetadata(kRequestIdKey, request_id_);
  context.AddInitialMetadata(kTraceKey, trace_.ToHeader());
  services_.metrics.RpcStarted(rpc_.type, rpc_.service, rpc_.method);
  services_.tracker.Add();
}

Call::~Call() {
  if (line_) services_.log.Request(*line_);
  services_.tracker.Remove();
}

absl::Status Call::Authorize() {
  if (services_.tokens == nullptr) return absl::OkStatus();
  LIMPID_ASSIGN_OR_RETURN(Caller caller, services_.tokens->Authenticate(Find(
                                             context_, kAuthorizationKey)));
  caller_ = caller.name;
  return RequireRole(caller, rpc_.role);
}

absl::Status Call::Receive(const grpc::ByteBuffer& bytes,
                           google::protobuf::Message& message) {
  LIMPID_RETURN_IF_ERROR(Authorize());
  return ParseMessage(bytes, message);
}

void Call::NoteClientGone() {
  client_gone_ = true;
  cancel_.Cancel();
  if (on_gone_) on_gone_();
}

std::string Call::client() const {
  if (!caller_.empty()) return caller_;
  std::vector<absl::string_view> forwarded;
  const auto [first, last] =
      context_.client_metadata().equal_range(kForwardedKey);
  for (auto value = first; value != last; ++value) {
    forwarded.emplace_back(value->second.data(), value->second.size());
  }
  return CallerAddress(context_.peer(), forwarded, services_.trusted_proxies);
}

void LogStarted(const CallServices& services, const RpcName& rpc,
                const std::string& request_id, const std::string& model) {
  services.log.Write(LogLevel::kDebug, "request started",
                     {{"request_id", request_id},
                      {"rpc", std::string(rpc.method)},
                      {"model", model}});
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
  RequestLine& line = line_.emplace();
  line.request_id = request_id_;
  line.rpc = rpc_.method;
  line.model = explained.model == kUnknown ? "" : explained.model;
  line.method = explained.method == kUnknown ? "" : explained.method;
  line.code = status.code();
  if (!status.ok()) line.reason = ReasonOf(status);
  // Other messages may hold what callers sent, which stays out of the log.
  if (absl::IsInternal(status)) line.error = std::string(status.message());
  line.num_tokens = explained.num_tokens;
  line.caller = caller_;
  line.trace_id = trace_.trace_id;
  line.span_id = trace_.span_id;
  line.parent_id = trace_.parent_id;
  line.total = took;
  line.queue = explained.queue;
  line.plan = explained.plan;
  line.compute = explained.compute;
  line.serialize = explained.serialize;
  line.send = explained.send;
  line.reply_bytes = explained.reply_bytes;
  line.slow = took >= services_.slow_request;
  context_.AddTrailingMetadata(kTimingKey, ServerTiming(took, explained));
  return ToGrpcStatus(status, request_id_);
}

}  // namespace limpid
