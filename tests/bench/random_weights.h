// SPDX-License-Identifier: Apache-2.0
//
// Networks of published shapes with random weights, for measuring.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "server/models/architecture.h"

namespace limpid::bench {

struct RandomNetwork {
  std::unique_ptr<const Network> network;
  int64_t weight_bytes = 0;
};
// The network of a configuration, its weights drawn as training would begin
// with them: small, decays and steps in their usual ranges. Stored, as it were,
// in bfloat16.
absl::StatusOr<RandomNetwork> MakeNetwork(const std::string& config,
                                          const BuildOptions& options);

}  // namespace limpid::bench
