// SPDX-License-Identifier: Apache-2.0
//
// The kernel of SelectiveScan for the sizes that models have.
#pragma once

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

// 16 states, and b, c and a aligned for loads of four.
bool CanScanQuads(const SelectiveScan<float>& op);
absl::Status ScanInQuads(const SelectiveScan<float>& op, cudaStream_t stream);

}  // namespace limpid::kernels::cuda
