// SPDX-License-Identifier: Apache-2.0
//
// Figures of a load test.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "client/bench/load.h"

namespace limpid::bench {

// Milliseconds.
struct Percentiles {
  double p50 = 0, p95 = 0, p99 = 0, max = 0;
};

// The smallest of the values that at least the share has reached; zeros without
// values.
Percentiles PercentilesOf(std::vector<absl::Duration> values);

struct Summary {
  double seconds = 0;
  int64_t num_sent = 0, num_ok = 0, num_wrong = 0;
  int64_t num_lost = 0;                   // sent, but without any end
  std::map<std::string, int64_t> errors;  // by code
  double throughput = 0;                  // good replies per second
  Percentiles latency;                    // of good replies
  Percentiles queue, compute;             // of good replies, as the server says
  // Of good replies: from sending to the reply, less the computing.
  Percentiles overhead;
  // RESOURCE_EXHAUSTED: from sending to the refusal.
  int64_t num_refused = 0, num_refused_with_retry = 0;
  Percentiles refusal;
  std::string first_mistake;

  // Nothing wrong, nothing lost, no INTERNAL or UNKNOWN, and something served.
  bool Passed() const;
};

Summary Summarize(const LoadResult& result);

std::string SummaryText(const Summary& summary);
std::string SummaryJson(const Summary& summary);

}  // namespace limpid::bench
