// SPDX-License-Identifier: Apache-2.0
//
// What ops on an S6 recurrence take from its tensors.
#pragma once

#include "server/models/kernel_dispatch.h"
#include "server/models/kernel_ops.h"

namespace limpid {

template <typename T>
kernels::SelectiveSsm<T> Ssm(const FrozenSsm& ssm) {
  TORCH_CHECK(ssm.a.is_contiguous());
  kernels::SelectiveSsm<T> out;
  out.num_positions = ssm.delta.size(-2);
  out.num_channels = ssm.a.size(0);
  out.state_size = ssm.a.size(1);
  out.delta = Data<T>(ssm.delta);
  out.delta_stride = RowStride(ssm.delta);
  out.a = Data<T>(ssm.a);
  out.b = Data<T>(ssm.b);
  out.b_stride = RowStride(ssm.b);
  out.c = Data<T>(ssm.c);
  out.c_stride = RowStride(ssm.c);
  out.skip = Data<T>(ssm.skip);
  return out;
}

// An op with all but rows, channels and output; of the first sequence where
// there are several.
template <typename T>
kernels::SsmAttention<T> Attention(const FrozenSsm& ssm,
                                   const FrozenFactors& factors) {
  kernels::SsmAttention<T> op;
  op.ssm = Ssm<T>(ssm);
  SetFactors<T>(factors, op);
  return op;
}

}  // namespace limpid
