// SPDX-License-Identifier: Apache-2.0
//
// Work of one thread that a GPU may do at the same time.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace limpid {

// Calls `aside`, then `here`. On a GPU, that of `where`, what they launch is
// unordered: `aside` goes to a stream beside the current one, where it begins
// after all that the current one was given before, and what the current one is
// given afterwards follows both. So neither may read what the other writes.
// Memory that `aside` allocates comes from a pool of its stream, which nothing
// but later calls from the same stream takes from.
void SideBySide(const at::Tensor& where, const std::function<void()>& aside,
                const std::function<void()>& here);

}  // namespace limpid
