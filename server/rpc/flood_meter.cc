// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/flood_meter.h"

#include <algorithm>
#include <utility>

namespace limpid {
namespace {

constexpr int64_t kLeastShare = 16;  // of the limit, inverted

}  // namespace

std::vector<FloodMeter::Flood> FloodMeter::Look(
    const std::vector<ConnectionState>& connections) {
  std::map<int, Mark> marks;
  std::vector<Flood> floods;
  int64_t sum = 0;
  for (const ConnectionState& connection : connections) {
    const auto before = marks_.find(connection.descriptor);
    // A descriptor that reads less than before is another connection's now.
    const bool silent = before != marks_.end() &&
                        before->second.sent == connection.sent &&
                        before->second.read <= connection.read;
    const Mark mark =
        silent ? before->second : Mark{connection.sent, connection.read};
    marks.emplace(connection.descriptor, mark);
    floods.push_back({connection, connection.read - mark.read});
    sum += floods.back().unanswered;
  }
  marks_ = std::move(marks);
  std::sort(floods.begin(), floods.end(), [](const Flood& a, const Flood& b) {
    return a.unanswered > b.unanswered;
  });
  size_t num_floods = 0;
  while (num_floods < floods.size() && sum > max_unanswered_ &&
         floods[num_floods].unanswered >= max_unanswered_ / kLeastShare) {
    sum -= floods[num_floods++].unanswered;
  }
  floods.resize(num_floods);
  return floods;
}

}  // namespace limpid
