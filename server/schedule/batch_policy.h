// SPDX-License-Identifier: Apache-2.0
//
// Which jobs may run as one batch, as pure functions.
//
// The sequences of a batch lie one after the other, whatever their lengths, so
// its price is the sum of what its members cost alone.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "absl/time/time.h"

namespace limpid {

// What a job says of itself to be batched.
struct BatchKey {
  // Jobs of the same one can share a batch; opaque. Null: this one runs alone.
  const void* group = nullptr;
  int64_t length = 0;  // positions of its sequence, 1 or more
};

struct BatchLimits {
  int64_t max_size = 1;  // 1: no batches
  // Of all sequences together: beyond, what a CPU computes no longer stays in
  // its caches.
  int64_t max_positions = std::numeric_limits<int64_t>::max();
  // Sum of the estimates. A single job may take longer.
  double max_seconds = 1;
  // How long a batch waits for more jobs; see SizeToWaitFor.
  absl::Duration max_wait;
};

// Jobs that run together.
struct Batch {
  const void* group = nullptr;
  int64_t size = 0;
  int64_t positions = 0;  // of all sequences
  int64_t longest = 0;    // positions of the longest
  double seconds = 0;     // sum of the members'
};

// A batch of one.
Batch BatchOf(const BatchKey& key, double seconds);

// The batch with one more job; none if the job must not join: it is of another
// group, or the batch would be too large or too long. A job that must not
// lengthen the batch, since those in it have a higher priority, is no longer
// than its longest.
std::optional<Batch> Joined(const Batch& batch, const BatchKey& key,
                            double seconds, bool may_lengthen,
                            const BatchLimits& limits);

// Waiting pays where more jobs are likely to come soon: callers that ask again
// when they have their reply come back all at once after a batch. So a batch
// waits for as many as the last one of its group had, and a lone caller's never
// waits.
int64_t SizeToWaitFor(int64_t last_size, const BatchLimits& limits);

}  // namespace limpid
