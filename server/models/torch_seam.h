// SPDX-License-Identifier: Apache-2.0
//
// Where exceptions stop: Torch throws, the rest of the program does not.
#pragma once

#include <functional>

#include "server/base/status.h"

namespace limpid {

// The reason of what did not fit in memory.
inline constexpr char kOutOfMemory[] = "OUT_OF_MEMORY";

// Calls `work` and turns what it throws into a status: out of memory becomes
// RESOURCE_EXHAUSTED (reason OUT_OF_MEMORY), everything else INTERNAL (reason
// ENGINE_FAILED) with the exception's first line.
absl::Status CatchTorch(const std::function<absl::Status()>& work);

}  // namespace limpid
