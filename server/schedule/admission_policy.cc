// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/admission_policy.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

constexpr absl::Duration kMinRetry = absl::Seconds(1);
constexpr absl::Duration kMaxRetry = absl::Seconds(30);
// By how much an estimate may exceed the time that is left.
constexpr double kHopeless = 4;

absl::Status Exhausted(const char* reason, const char* limit_name,
                       const std::string& limit, absl::string_view message,
                       const PoolLoad& load) {
  ErrorDetails details;
  details.reason = reason;
  details.metadata[limit_name] = limit;
  details.retry_after = RetryAfter(load);
  return MakeError(absl::StatusCode::kResourceExhausted,
                   absl::StrCat(message, "; try again later"),
                   std::move(details));
}

}  // namespace

absl::Duration RetryAfter(const PoolLoad& load) {
  const absl::Duration work =
      std::max(load.mean_run_time * static_cast<double>(load.num_waiting),
               absl::Seconds(load.waiting_seconds));
  const int64_t num_workers = load.limits.num_devices * load.limits.max_running;
  return std::clamp(work / static_cast<double>(num_workers), kMinRetry,
                    kMaxRetry);
}

absl::Status RefusalStatus(Admission admission, const Ticket& ticket,
                           const PoolLoad& load) {
  const QueueLimits& limits = load.limits;
  switch (admission) {
    case Admission::kAccept:
      return absl::OkStatus();
    case Admission::kClientQueueFull:
      return Exhausted(
          "CLIENT_QUEUE_FULL", "max_client_queue_size",
          absl::StrCat(limits.max_waiting_of_client),
          absl::StrCat("of one client at most ", limits.max_waiting_of_client,
                       " requests may wait"),
          load);
    case Admission::kQueueTooLong:
      return Exhausted("QUEUE_TOO_LONG", "max_queue_seconds",
                       absl::StrCat(limits.max_waiting_seconds),
                       absl::StrCat("requests of about ", load.waiting_seconds,
                                    " s wait, this one takes about ",
                                    ticket.seconds, " s, at most ",
                                    limits.max_waiting_seconds, " s may wait"),
                       load);
    case Admission::kTooLarge: {
      ErrorDetails details;
      details.reason = "REQUEST_TOO_LARGE";
      details.metadata["max_running_memory_bytes"] =
          absl::StrCat(limits.max_running_bytes);
      return MakeError(
          absl::StatusCode::kFailedPrecondition,
          absl::StrCat("the request needs ", ticket.bytes,
                       " bytes beside the weights, running requests may hold ",
                       limits.max_running_bytes,
                       "; ask for fewer layers or channels, or a reduction"),
          std::move(details));
    }
    case Admission::kQueueFull:
      break;
  }
  return Exhausted(
      "QUEUE_FULL", "max_queue_size", absl::StrCat(limits.max_waiting),
      absl::StrCat("the queue is full: ", load.num_running,
                   " requests are computed, ", load.num_waiting,
                   " wait, at most ", limits.max_waiting, " may wait"),
      load);
}

absl::Status DrainingStatus() {
  ErrorDetails details;
  details.reason = "SERVER_DRAINING";
  details.retry_after = kMinRetry;
  return MakeError(absl::StatusCode::kUnavailable,
                   "the server is shutting down; try another one, or again",
                   std::move(details));
}

absl::Time LatestStart(absl::Time deadline, double seconds) {
  return deadline - absl::Seconds(seconds / kHopeless);
}

absl::Status CheckStart(absl::Time deadline, double seconds, absl::Time now) {
  if (now < LatestStart(deadline, seconds)) return absl::OkStatus();
  if (now >= deadline) {
    return MakeError(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                     "the deadline passed before the request was started");
  }
  return MakeError(
      absl::StatusCode::kDeadlineExceeded, "DEADLINE_TOO_SHORT",
      absl::StrCat("the explanation would take about ", seconds, " s, but ",
                   absl::FormatDuration(deadline - now), " are left"));
}

}  // namespace limpid
