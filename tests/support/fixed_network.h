// SPDX-License-Identifier: Apache-2.0
//
// A linear network whose attention matrices are given, so that everything about
// it can be worked out by hand.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "server/models/architecture.h"

namespace limpid::testing {

// Adds out (alpha_c (stream in^T)_c) to the stream.
struct FixedBlock {
  at::Tensor alpha;  // [D, L, L]
  at::Tensor in;     // [D, E]
  at::Tensor out;    // [E, D]
};

// Scores [V] at a position: head stream + bias. Tokens are rows of `table`.
struct FixedParts {
  at::Tensor table;  // [V, E]
  std::vector<FixedBlock> blocks;
  at::Tensor head;  // [V, E]
  at::Tensor bias;  // [V]
};

// All tensors float64. The network takes sequences of L positions only.
std::unique_ptr<const Network> MakeFixedNetwork(FixedParts parts);

}  // namespace limpid::testing
