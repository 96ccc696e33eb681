// SPDX-License-Identifier: Apache-2.0
//
// Which peers open streams to reset them (CVE-2023-44487): a pure function of
// what gRPC counts per connection. No gRPC.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace limpid {

// Since a connection was made.
struct StreamCounts {
  int64_t connection = 0;  // unique in the process
  std::string host;        // of the peer, see PackedHost
  int64_t started = 0;
  int64_t succeeded = 0;  // the server sent all of its reply, good or bad
};

// Not thread-safe.
class ResetMeter {
 public:
  // More than `max_per_second` streams of a peer, over all of its connections,
  // that end without a reply are too many; a second's worth may come at once.
  // Streams of a connection that may still be running, `max_streams` at most,
  // don't count.
  ResetMeter(int64_t max_per_second, int64_t max_streams);

  struct Offender {
    std::string host;
    int64_t num_resets = 0;  // beyond the limit
  };
  // Peers that have gone beyond since the last look. `connections` are all that
  // are open now.
  std::vector<Offender> Look(const std::vector<StreamCounts>& connections,
                             absl::Time now);

 private:
  const double max_per_second_;
  const int64_t max_streams_;
  absl::Time last_look_ = absl::InfinitePast();
  std::map<int64_t, int64_t> counted_;    // resets by connection
  std::map<std::string, double> levels_;  // resets by host, less what was free
};

}  // namespace limpid
