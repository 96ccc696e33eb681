// SPDX-License-Identifier: Apache-2.0
//
// What the operations on recurrences with a matrix state mean, as loops
// straight from the formulas in server/kernels/ops.h, in double precision.
// Slow: O(L^2 N) per head for attention, and all L states are kept for the
// gradients.
//
// Each takes the struct of the operation and writes to its outputs. Ranges of
// heads, channels and rows are honoured, scratch memory is not used.
#pragma once

#include "server/kernels/ops.h"

namespace limpid::reference {

void Run(const kernels::StateScan<double>& op);
void Run(const kernels::StateScanBackward<double>& op);
void Run(const kernels::StateAttention<double>& op);
void Run(const kernels::ExpandHeads<double>& op);

}  // namespace limpid::reference
