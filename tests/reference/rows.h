// SPDX-License-Identifier: Apache-2.0
//
// What the operations of server/kernels/rows.h and wkv.h mean, as ssm.h does it
// for those of ops.h.
#pragma once

#include "server/kernels/rows.h"
#include "server/kernels/wkv.h"

namespace limpid::reference {

void Run(const kernels::SsmAttentionFold<double>& op);
void Run(const kernels::JoinDirections<double>& op);
void Run(const kernels::SsmRowsFold<double>& op);
void Run(const kernels::RowErrors<double>& op);
void Run(const kernels::Wkv<double>& op);

}  // namespace limpid::reference
