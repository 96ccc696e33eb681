// SPDX-License-Identifier: Apache-2.0
//
// What the operations of server/kernels/ops.h mean, as loops straight from
// their formulas, in double precision and without any trick. Slow: O(L^2 N) per
// channel for attention.
//
// Each takes the struct of the operation and writes to its outputs. Ranges of
// channels and rows are honoured, scratch memory is not used.
#pragma once

#include "server/kernels/ops.h"

namespace limpid::reference {

void Run(const kernels::SelectiveScan<double>& op);
void Run(const kernels::SelectiveScanBackward<double>& op);
void Run(const kernels::CausalConv1d<double>& op);
void Run(const kernels::SsmAttention<double>& op);
void Run(const kernels::FoldChannels<double>& op);

}  // namespace limpid::reference
