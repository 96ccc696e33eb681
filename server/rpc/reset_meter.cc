// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/reset_meter.h"

#include <algorithm>
#include <utility>

namespace limpid {

ResetMeter::ResetMeter(int64_t max_per_second, int64_t max_streams)
    : max_per_second_(static_cast<double>(max_per_second)),
      max_streams_(max_streams) {}

std::vector<ResetMeter::Offender> ResetMeter::Look(
    const std::vector<StreamCounts>& connections, absl::Time now) {
  std::map<int64_t, int64_t> counted;
  std::map<std::string, double> levels = std::move(levels_);
  for (const StreamCounts& c : connections) {
    const auto before = counted_.find(c.connection);
    const int64_t had = before == counted_.end() ? 0 : before->second;
    // Those that run may succeed later, which lowers the difference.
    const int64_t has = std::max(had, c.started - c.succeeded - max_streams_);
    counted[c.connection] = has;
    if (has > had) levels[c.host] += static_cast<double>(has - had);
  }
  counted_ = std::move(counted);
  const double free = max_per_second_ * absl::ToDoubleSeconds(now - last_look_);
  last_look_ = now;
  std::vector<Offender> offenders;
  levels_.clear();
  for (auto& [host, level] : levels) {
    level -= free;
    if (level > max_per_second_) {
      offenders.push_back({host, static_cast<int64_t>(level)});
    } else if (level > 0) {
      levels_.emplace(host, level);
    }
  }
  return offenders;
}

}  // namespace limpid
