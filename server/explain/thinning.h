// SPDX-License-Identifier: Apache-2.0
//
// Returned attention made smaller: averages over blocks, the largest entries.
#pragma once

#include <ATen/core/Tensor.h>

#include "server/explain/request.h"

namespace limpid {

// Entries of a matrix [..., L, L] or of a row [..., L] as the request wants them
// returned. With downsample n, sides become ceil(L / n); blocks at the end are
// averaged over what they have.
at::Tensor ThinnedMatrix(const at::Tensor& entries,
                         const AttentionRequest& request);
at::Tensor ThinnedRow(const at::Tensor& entries,
                      const AttentionRequest& request);

}  // namespace limpid
