// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/flood_guard.h"

#include <set>
#include <utility>

#include "server/base/steady_time.h"
#include "server/rpc/peers.h"

namespace limpid {
namespace {

// A peer on a fast network brings some 50 MB meanwhile.
constexpr absl::Duration kPeriod = absl::Milliseconds(50);
constexpr absl::Duration kBarredFor = absl::Seconds(10);
// Share of a core that looking at thousands of connections may take.
constexpr double kMaxShare = 0.05;

}  // namespace

FloodGuard::FloodGuard(int64_t max_unanswered, std::vector<AddressRange> exempt,
                       Acceptor& acceptor, OnFlood on_flood)
    : exempt_(std::move(exempt)),
      acceptor_(acceptor),
      on_flood_(std::move(on_flood)),
      meter_(max_unanswered),
      periodic_(kPeriod, [this] { Look(); }) {}

void FloodGuard::Look() {
  const absl::Time now = SteadyNow();
  if (now < next_) return;
  std::vector<ConnectionState> counted;
  for (ConnectionState& connection : acceptor_.Connections()) {
    if (connection.dead) {
      acceptor_.WakeOwner(connection);
    } else if (!AnyContains(exempt_, connection.host)) {
      counted.push_back(std::move(connection));
    }
  }
  std::set<std::string> barred;
  for (const FloodMeter::Flood& flood : meter_.Look(counted)) {
    if (!barred.insert(flood.connection.host).second) continue;
    acceptor_.Bar(flood.connection.host, now + kBarredFor);
    on_flood_(HostText(flood.connection.host), flood.unanswered);
  }
  next_ = now + (SteadyNow() - now) / kMaxShare;
}

}  // namespace limpid
