// SPDX-License-Identifier: Apache-2.0
//
// Bars peers that open streams to reset them faster than gRPC can work that
// off: 1.51 has no limit of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/periodic.h"
#include "server/rpc/acceptor.h"
#include "server/rpc/address_range.h"
#include "server/rpc/reset_meter.h"

namespace limpid {

class ResetGuard {
 public:
  // A peer was barred: its address, and its resets beyond the limit.
  using OnBarred =
      std::function<void(const std::string& host, int64_t num_resets)>;

  // Looks at the connections of `acceptor`, which outlives this, on a thread of
  // its own. The limits are those of ResetMeter; `exempt` are never barred.
  ResetGuard(int64_t max_per_second, int64_t max_streams,
             std::vector<AddressRange> exempt, Acceptor& acceptor,
             OnBarred on_barred);

 private:
  void Look();

  const int64_t max_per_second_;
  const std::vector<AddressRange> exempt_;
  Acceptor& acceptor_;
  const OnBarred on_barred_;
  // Of the thread alone once it runs.
  ResetMeter meter_;
  int64_t unsuccessful_ = 0;
  absl::Time last_ = absl::InfinitePast(), next_ = absl::InfinitePast();

  Periodic periodic_;  // ends first
};

}  // namespace limpid
