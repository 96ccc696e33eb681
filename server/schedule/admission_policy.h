// SPDX-License-Identifier: Apache-2.0
//
// Whether a job may enter the queue, as pure functions of what the pool holds.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "server/base/status.h"

namespace limpid {

// What a pool holds at one moment.
struct PoolLoad {
  int64_t num_workers = 1;
  int64_t max_queue_size = 0;  // jobs that may wait
  int64_t num_queued = 0;      // accepted, not started; free workers take them
  int64_t num_running = 0;
  bool draining = false;
  absl::Duration mean_run_time;  // of the jobs seen lately; 0 before the first
};

enum class Admission { kAccept, kQueueFull, kDraining };

// A job that a free worker will take at once does not count as waiting.
Admission Decide(const PoolLoad& load);

// When a refused caller may expect a free place: a queue's worth of work, at
// least 1 s and at most 30 s.
absl::Duration RetryAfter(const PoolLoad& load);

// The error of a refusal: RESOURCE_EXHAUSTED, reason QUEUE_FULL, or
// UNAVAILABLE, reason SERVER_DRAINING; both say when to try again.
absl::Status RefusalStatus(Admission admission, const PoolLoad& load);

// The error of work that a shutdown ended or kept from starting: UNAVAILABLE,
// reason SERVER_DRAINING.
absl::Status DrainingStatus();

}  // namespace limpid
