// SPDX-License-Identifier: Apache-2.0
//
// Sends requests in a closed loop (each client sends the next when it has the
// reply) or an open one (requests come at random times, whatever the server
// does), and notes how each ended.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/bench/workload.h"
#include "client/explanation.h"

namespace limpid::bench {

struct LoadOptions {
  int clients = 1;  // connections
  absl::Duration duration = absl::Seconds(10);
  // Open loop: requests per second, at exponential distances. None: closed.
  std::optional<double> rate;
  // Open loop: requests that are out at the same time at most; those that come
  // beyond that wait in here, which counts as latency.
  int max_in_flight = 512;
  uint64_t seed = 1;
};

// How a request ended.
struct Sample {
  absl::StatusCode code = absl::StatusCode::kOk;
  bool retry_info = false;  // the refusal says when to come back
  std::string mistake;      // of a reply that is wrong
  // From the time at which the request was due (open loop) or sent.
  absl::Duration latency;
  absl::Duration service;  // from when it was sent
  // As the server says; of good replies only.
  absl::Duration queue, compute;
};

struct LoadResult {
  std::vector<Sample> samples;
  int64_t num_sent = 0;
  absl::Duration took;  // until the last reply
};

// Makes a call on one of the connections; blocks until it has ended. Called by
// many threads.
using Call = std::function<absl::StatusOr<Explanation>(
    int client, const v1::ExplainRequest& request)>;

// Ends early when a call ends with CANCELLED: the user has had enough.
LoadResult RunLoad(const LoadOptions& options, const Workload& workload,
                   const Call& call);

}  // namespace limpid::bench
