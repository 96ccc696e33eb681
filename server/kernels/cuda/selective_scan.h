// SPDX-License-Identifier: Apache-2.0
//
// The kernel of SelectiveScan for the sizes that models have, and what it
// shares with the one for all others.
#pragma once

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

template <typename T>
__device__ T Silu(T x) {
  return x / (T{1} + exp(-x));
}

// 16 states, and b, c and a aligned for loads of four.
bool CanScanQuads(const SelectiveScan<float>& op);
absl::Status ScanInQuads(const SelectiveScan<float>& op, cudaStream_t stream);

}  // namespace limpid::kernels::cuda
