// SPDX-License-Identifier: Apache-2.0
//
// What becomes of a job that may not enter the queue or no longer has the time
// to run, as pure functions of what the pool holds.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "server/base/status.h"
#include "server/schedule/fair_queue.h"

namespace limpid {

// What a pool holds at one moment.
struct PoolLoad {
  QueueLimits limits;
  int64_t num_waiting = 0;  // accepted, not started; free workers take them
  int64_t num_running = 0;
  double waiting_seconds = 0;  // sum of the estimates of those that wait
  bool draining = false;
  absl::Duration mean_run_time;  // of the jobs seen lately; 0 before the first
};

// When a refused caller may expect a free place: a queue's worth of work, at
// least 1 s and at most 30 s.
absl::Duration RetryAfter(const PoolLoad& load);

// The error of a refusal. RESOURCE_EXHAUSTED with the limit and when to try
// again, reason QUEUE_FULL, QUEUE_TOO_LONG or CLIENT_QUEUE_FULL;
// FAILED_PRECONDITION, reason REQUEST_TOO_LARGE, for kTooLarge.
absl::Status RefusalStatus(Admission admission, const Ticket& ticket,
                           const PoolLoad& load);

// The error of work that a shutdown ended or kept from starting: UNAVAILABLE,
// reason SERVER_DRAINING.
absl::Status DrainingStatus();

// When a job of this estimate has to start to be worth it. Estimates of time
// are rough: only one that would miss its deadline by far is given up for that.
absl::Time LatestStart(absl::Time deadline, double seconds);

// Ok, or why a job that waited until `now` is given up: DEADLINE_EXCEEDED,
// reason DEADLINE_EXCEEDED or DEADLINE_TOO_SHORT.
absl::Status CheckStart(absl::Time deadline, double seconds, absl::Time now);

}  // namespace limpid
