// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/admission_policy.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

constexpr absl::Duration kMinRetry = absl::Seconds(1);
constexpr absl::Duration kMaxRetry = absl::Seconds(30);

}  // namespace

Admission Decide(const PoolLoad& load) {
  if (load.draining) return Admission::kDraining;
  const int64_t num_free =
      std::max<int64_t>(0, load.num_workers - load.num_running);
  return load.num_queued < load.max_queue_size + num_free
             ? Admission::kAccept
             : Admission::kQueueFull;
}

absl::Duration RetryAfter(const PoolLoad& load) {
  const absl::Duration expected = load.mean_run_time *
                                  static_cast<double>(load.num_queued) /
                                  static_cast<double>(load.num_workers);
  return std::clamp(expected, kMinRetry, kMaxRetry);
}

absl::Status RefusalStatus(Admission admission, const PoolLoad& load) {
  if (admission == Admission::kDraining) return DrainingStatus();
  ErrorDetails details;
  details.reason = "QUEUE_FULL";
  details.metadata["max_queue_size"] = absl::StrCat(load.max_queue_size);
  details.retry_after = RetryAfter(load);
  return MakeError(absl::StatusCode::kResourceExhausted,
                   absl::StrCat("the queue is full: ", load.num_running,
                                " requests are computed, ", load.num_queued,
                                " wait, at most ", load.max_queue_size,
                                " may wait; try again later"),
                   std::move(details));
}

absl::Status DrainingStatus() {
  ErrorDetails details;
  details.reason = "SERVER_DRAINING";
  details.retry_after = kMinRetry;
  return MakeError(absl::StatusCode::kUnavailable,
                   "the server is shutting down; try another one, or again",
                   std::move(details));
}

}  // namespace limpid
