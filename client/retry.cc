// SPDX-License-Identifier: Apache-2.0
#include "client/retry.h"

#include <algorithm>
#include <cmath>

#include "client/error_report.h"

namespace limpid {

std::optional<absl::Duration> NextDelay(const RetryPolicy& policy, int attempts,
                                        const absl::Status& status,
                                        absl::Duration remaining,
                                        double random) {
  if (attempts >= policy.max_attempts) return std::nullopt;
  const auto named = GetErrorReport(status).retry_after;
  if (!absl::IsUnavailable(status) &&
      !(absl::IsResourceExhausted(status) && named)) {
    return std::nullopt;
  }
  absl::Duration delay;
  if (named) {
    // The server knows when it will be ready; coming earlier is no use.
    delay = *named * (1 + 0.1 * random);
  } else {
    const absl::Duration backoff =
        policy.initial_backoff * std::pow(policy.multiplier, attempts - 1);
    delay = std::min(backoff, policy.max_backoff) * (0.5 + 0.5 * random);
  }
  if (delay >= remaining) return std::nullopt;
  return delay;
}

absl::Status RunWithRetry(const RetryPolicy& policy,
                          const RetryEnvironment& environment,
                          absl::Time deadline,
                          const std::function<Attempt()>& attempt) {
  for (int attempts = 1;; ++attempts) {
    const Attempt result = attempt();
    if (result.status.ok() || !result.repeatable) return result.status;
    const std::optional<absl::Duration> delay =
        NextDelay(policy, attempts, result.status, deadline - environment.now(),
                  environment.random());
    if (!delay) return result.status;
    if (!environment.sleep(*delay)) {
      return ClientError(absl::StatusCode::kCancelled, "CANCELLED",
                         "cancelled by the caller");
    }
  }
}

}  // namespace limpid
