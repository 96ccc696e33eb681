// SPDX-License-Identifier: Apache-2.0
//
// Which connections bring bytes that nobody asked for: a pure function of what
// the kernel counts per connection. HTTP/2 bounds what a peer may send by
// windows, which the server has to open, and wants answers to most frames; a
// header block that never ends (CVE-2024-27316) needs neither, and gRPC 1.51
// keeps all of it. No gRPC.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "server/rpc/peers.h"

namespace limpid {

// Not thread-safe.
class FloodMeter {
 public:
  // Bytes that all connections together may have brought since the server last
  // sent something over each.
  explicit FloodMeter(int64_t max_unanswered)
      : max_unanswered_(max_unanswered) {}

  struct Flood {
    ConnectionState connection;
    int64_t unanswered = 0;  // bytes
  };
  // Those to be rid of, so that the rest stays within the limit: who has
  // brought most goes first, and nobody for less than a sixteenth of the limit.
  // `connections` are all that are open now.
  std::vector<Flood> Look(const std::vector<ConnectionState>& connections);

 private:
  struct Mark {
    int64_t sent = 0;
    int64_t read = 0;
  };
  const int64_t max_unanswered_;
  // By descriptor: when the server was first seen to have sent so much.
  std::map<int, Mark> marks_;
};

}  // namespace limpid
