// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/batch_policy.h"

#include <algorithm>

namespace limpid {

Batch BatchOf(const BatchKey& key, double seconds) {
  return {key.group, 1, key.length, key.length, seconds};
}

std::optional<Batch> Joined(const Batch& batch, const BatchKey& key,
                            double seconds, bool may_lengthen,
                            const BatchLimits& limits) {
  if (key.group == nullptr || key.group != batch.group) return std::nullopt;
  if (batch.size >= limits.max_size) return std::nullopt;
  if (key.length > batch.longest && !may_lengthen) return std::nullopt;
  if (key.length > limits.max_positions - batch.positions) return std::nullopt;
  if (batch.seconds + seconds > limits.max_seconds) return std::nullopt;
  Batch joined = batch;
  ++joined.size;
  joined.positions += key.length;
  joined.longest = std::max(batch.longest, key.length);
  joined.seconds += seconds;
  return joined;
}

int64_t SizeToWaitFor(int64_t last_size, const BatchLimits& limits) {
  return limits.max_wait > absl::ZeroDuration()
             ? std::min(last_size, limits.max_size)
             : 1;
}

}  // namespace limpid
