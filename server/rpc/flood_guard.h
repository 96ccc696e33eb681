// SPDX-License-Identifier: Apache-2.0
//
// Looks after connections beside gRPC 1.51: bars peers that flood it, and tells
// it of connections that were reset. (Its reads trust TCP_INQ, which is 0 when
// a reset has come behind the last byte; the event that told of it is used up
// by then, and the connection keeps all that it holds until its keepalive.)
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/periodic.h"
#include "server/rpc/acceptor.h"
#include "server/rpc/address_range.h"
#include "server/rpc/flood_meter.h"

namespace limpid {

class FloodGuard {
 public:
  // A peer was barred: its address, and the bytes of the connection that were
  // too many.
  using OnFlood =
      std::function<void(const std::string& host, int64_t unanswered)>;

  // Looks at the connections of `acceptor`, which outlives this, on a thread of
  // its own. The limit is that of FloodMeter; connections of `exempt` are not
  // counted.
  FloodGuard(int64_t max_unanswered, std::vector<AddressRange> exempt,
             Acceptor& acceptor, OnFlood on_flood);

 private:
  void Look();

  const std::vector<AddressRange> exempt_;
  Acceptor& acceptor_;
  const OnFlood on_flood_;
  // Of the thread alone once it runs.
  FloodMeter meter_;
  absl::Time next_ = absl::InfinitePast();

  Periodic periodic_;  // ends first
};

}  // namespace limpid
