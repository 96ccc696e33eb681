// SPDX-License-Identifier: Apache-2.0
//
// Small networks with random weights, without files.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "server/models/architecture.h"

namespace limpid::testing {

// The network of a configuration with seeded random weights; the same seed
// gives the same values in float32 and float64 up to rounding. Fails the test
// if it can't be built.
std::unique_ptr<const Network> MakeRandomNetwork(const ArchitectureSpec& spec,
                                                 const std::string& config,
                                                 at::ScalarType dtype,
                                                 uint64_t seed);

// Seeded token ids [batch, length].
at::Tensor RandomTokens(const Network& network, int64_t batch, int64_t length,
                        uint64_t seed);

}  // namespace limpid::testing
