// SPDX-License-Identifier: Apache-2.0
//
// A loop whose turns run in a few threads.
#pragma once

#include <cstddef>
#include <functional>

#include "absl/status/status.h"

namespace limpid::evaluate {

// Calls turn(0), ..., turn(count - 1), up to `threads` at a time, and
// after_each(number done) one at a time. Begins no more turns after one that
// failed, and returns the first error.
absl::Status ForEachInParallel(size_t count, int threads,
                               const std::function<absl::Status(size_t)>& turn,
                               const std::function<void(size_t)>& after_each);

}  // namespace limpid::evaluate
