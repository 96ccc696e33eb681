// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/batch_policy.h"

#include <algorithm>
#include <cmath>

namespace limpid {

int64_t Batch::bytes() const {
  return static_cast<int64_t>(
      std::ceil(bytes_per_position * static_cast<double>(longest)));
}

Batch BatchOf(const BatchKey& key, double seconds, int64_t bytes) {
  const auto length = static_cast<double>(key.length);
  return {key.group,        1,
          key.length,       key.length,
          seconds / length, static_cast<double>(bytes) / length};
}

std::optional<Batch> Joined(const Batch& batch, const BatchKey& key,
                            double seconds, int64_t bytes, bool may_lengthen,
                            const BatchLimits& limits) {
  if (key.group == nullptr || key.group != batch.group) return std::nullopt;
  if (batch.size >= limits.max_size) return std::nullopt;
  if (key.length > batch.longest && !may_lengthen) return std::nullopt;
  const Batch one = BatchOf(key, seconds, bytes);
  Batch joined = batch;
  ++joined.size;
  joined.shortest = std::min(batch.shortest, one.shortest);
  joined.longest = std::max(batch.longest, one.longest);
  joined.seconds_per_position += one.seconds_per_position;
  joined.bytes_per_position += one.bytes_per_position;
  const auto longest = static_cast<double>(joined.longest);
  if (static_cast<double>(joined.shortest) <
      longest * (1 - limits.max_padding)) {
    return std::nullopt;
  }
  if (joined.longest > limits.max_positions / joined.size) return std::nullopt;
  if (joined.seconds() > limits.max_seconds) return std::nullopt;
  return joined;
}

int64_t SizeToWaitFor(int64_t last_size, const BatchLimits& limits) {
  return limits.max_wait > absl::ZeroDuration()
             ? std::min(last_size, limits.max_size)
             : 1;
}

}  // namespace limpid
