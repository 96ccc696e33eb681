// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

// In state_scan_scalar.cu: an op that was validated, with one state and one
// channel per head and neither left nor right.
template <typename T>
absl::Status RunScalars(const StateScan<T>& op, cudaStream_t stream);

}  // namespace limpid::kernels::cuda
