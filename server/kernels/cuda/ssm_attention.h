// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

// Rows that are made one by one rather than in blocks.
inline constexpr int64_t kFewRows = 8;

// In ssm_attention_rows.cu. `op` was validated and is not empty.
template <typename T>
absl::Status RunRows(const SsmAttention<T>& op, cudaStream_t stream);

}  // namespace limpid::kernels::cuda
