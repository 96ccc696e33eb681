// SPDX-License-Identifier: Apache-2.0
#include "server/base/steady_time.h"

#include <chrono>

namespace limpid {

absl::Time SteadyNow() {
  return absl::UnixEpoch() +
         absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace limpid
