// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/reset_guard.h"

#include <utility>

#include "server/base/steady_time.h"
#include "server/rpc/peers.h"
#include "server/rpc/stream_census.h"

namespace limpid {
namespace {

// A sender makes some 100,000 streams a second, of 10 KiB each until gRPC has
// worked them off.
constexpr absl::Duration kPeriod = absl::Milliseconds(50);
constexpr absl::Duration kBarredFor = absl::Seconds(10);
// Share of a core that looking at thousands of connections may take.
constexpr double kMaxShare = 0.1;

}  // namespace

ResetGuard::ResetGuard(int64_t max_per_second, int64_t max_streams,
                       std::vector<AddressRange> exempt, Acceptor& acceptor,
                       OnBarred on_barred)
    : max_per_second_(max_per_second),
      exempt_(std::move(exempt)),
      acceptor_(acceptor),
      on_barred_(std::move(on_barred)),
      meter_(max_per_second, max_streams),
      periodic_(kPeriod, [this] { Look(); }) {}

void ResetGuard::Look() {
  const absl::Time now = SteadyNow();
  if (now < next_) return;
  // Most of the time all calls end well, and no connection need be looked at.
  const int64_t unsuccessful = CountUnsuccessfulCalls();
  const double grown = static_cast<double>(unsuccessful - unsuccessful_);
  const double allowed =
      static_cast<double>(max_per_second_) * absl::ToDoubleSeconds(now - last_);
  unsuccessful_ = unsuccessful;
  last_ = now;
  if (grown <= allowed) return;
  for (const ResetMeter::Offender& offender :
       meter_.Look(CountStreams(acceptor_.port()), now)) {
    if (AnyContains(exempt_, offender.host)) continue;
    acceptor_.Bar(offender.host, now + kBarredFor);
    on_barred_(HostText(offender.host), offender.num_resets);
  }
  next_ = now + (SteadyNow() - now) / kMaxShare;
}

}  // namespace limpid
