// SPDX-License-Identifier: Apache-2.0
//
// From a checkpoint to a network: picks the architecture by config.json.
#pragma once

#include <memory>

#include "server/checkpoint/checkpoint.h"
#include "server/models/architecture.h"

namespace limpid {

// FAILED_PRECONDITION, reason ARCHITECTURE_UNKNOWN, naming the known
// model_types; else as ArchitectureSpec::build.
absl::StatusOr<std::unique_ptr<const Network>> LoadNetwork(
    const Checkpoint& checkpoint, const BuildOptions& options);

// Ids of the listed architectures.
std::vector<std::string> ArchitectureIds();

}  // namespace limpid
