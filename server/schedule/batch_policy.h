// SPDX-License-Identifier: Apache-2.0
//
// Which jobs may run as one batch, as pure functions.
//
// The sequences of a batch are padded to its longest one, which costs time and
// memory for nothing; so a batch takes sequences of about the same length only,
// and its price is what its members would cost at that length.
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
  // Of all sequences together, padding included: beyond, what a CPU computes
  // no longer stays in its caches.
  int64_t max_positions = std::numeric_limits<int64_t>::max();
  // Part of a padded sequence that may be padding.
  double max_padding = 0.25;
  // Sum of the estimates at the padded length. A single job may take longer.
  double max_seconds = 1;
  // How long a batch waits for more jobs; see SizeToWaitFor.
  absl::Duration max_wait;
};

// Jobs that run together.
struct Batch {
  const void* group = nullptr;
  int64_t size = 0;
  int64_t shortest = 0;  // positions
  int64_t longest = 0;
  // Prices of the members per position of their own length, added up.
  double seconds_per_position = 0;
  double bytes_per_position = 0;

  // At the padded length. An upper bound: padding costs no more than as many
  // positions of the sequence itself.
  double seconds() const { return seconds_per_position * longest; }
  // Never less than the sum of the members' own.
  int64_t bytes() const;
};

// A batch of one.
Batch BatchOf(const BatchKey& key, double seconds, int64_t bytes);

// The batch with one more job; none if the job must not join: it is of another
// group, too much would be padding, or the batch would be too large or too
// long. A job that must not lengthen the batch, since those in it have a higher
// priority, is no longer than its longest.
std::optional<Batch> Joined(const Batch& batch, const BatchKey& key,
                            double seconds, int64_t bytes, bool may_lengthen,
                            const BatchLimits& limits);

// Waiting pays where more jobs are likely to come soon: callers that ask again
// when they have their reply come back all at once after a batch. So a batch
// waits for as many as the last one of its group had, and a lone caller's never
// waits.
int64_t SizeToWaitFor(int64_t last_size, const BatchLimits& limits);

}  // namespace limpid
