// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"

namespace limpid {

// Since an unknown moment; runs evenly whatever is done to the system's clock.
// Thread-safe.
absl::Time SteadyNow();

}  // namespace limpid
