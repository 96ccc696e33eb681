// SPDX-License-Identifier: Apache-2.0
//
// When a failed call is tried again: a pure rule, and the loop that follows it.
// Every call of this API may be repeated without harm.
#pragma once

#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace limpid {

struct RetryPolicy {
  int max_attempts = 3;  // in all; at least one is made
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(5);
  double multiplier = 2;
};

// How long to wait after `attempts` tries of which the last ended with
// `status`, or nullopt to give up. UNAVAILABLE is tried again, and
// RESOURCE_EXHAUSTED where the server names a time (a full queue does, a limit
// does not); only if the wait ends before `remaining` does. The wait is at
// least what the server named, else the back-off; `random` (0 to 1) spreads
// callers over half of it.
std::optional<absl::Duration> NextDelay(const RetryPolicy& policy, int attempts,
                                        const absl::Status& status,
                                        absl::Duration remaining,
                                        double random);

// What the loop needs of the world, so that tests can stand in for it.
struct RetryEnvironment {
  std::function<absl::Time()> now;
  // Waits; false if it was cut short because the caller cancelled.
  std::function<bool(absl::Duration)> sleep;
  std::function<double()> random;  // 0 to 1
};

// What one try came to.
struct Attempt {
  absl::Status status;
  // False once a part of the reply has been handed on.
  bool repeatable = true;
};

// Calls `attempt` until it succeeds or the policy gives up; its last status, or
// CANCELLED if a wait was cut short.
absl::Status RunWithRetry(const RetryPolicy& policy,
                          const RetryEnvironment& environment,
                          absl::Time deadline,
                          const std::function<Attempt()>& attempt);

}  // namespace limpid
