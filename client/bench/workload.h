// SPDX-License-Identifier: Apache-2.0
//
// The requests of a load test, and what is checked of a reply.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "client/explanation.h"
#include "limpid/v1/explanation.pb.h"
#include "limpid/v1/model.pb.h"

namespace limpid::bench {

struct WorkloadOptions {
  std::vector<v1::Model> models;  // resident, reading text; one or more
  std::vector<int64_t> lengths;   // in tokens; one or more
  std::string method;             // empty: the server's default
  double max_residual = 1e-4;
};

// Immutable and thread-safe.
class Workload {
 public:
  explicit Workload(WorkloadOptions options);

  // A request with random model, length and token ids, so that hardly two are
  // the same.
  v1::ExplainRequest Next(std::mt19937_64& random) const;

  // What is wrong with the reply, which has been decoded and whose checksums
  // fit; empty if nothing is.
  std::string Mistake(const v1::ExplainRequest& request,
                      const Explanation& reply) const;

 private:
  const WorkloadOptions options_;
  std::map<std::string, std::string> digests_;  // by model
};

}  // namespace limpid::bench
