// SPDX-License-Identifier: Apache-2.0
//
// What the two algorithms for SsmAttention on the CPU share.
#pragma once

#include <cstdint>

#include "server/kernels/cpu/simd.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {

// Convolution of an operation without one: width 1, weight 1.
template <typename T>
LIMPID_INLINE int64_t ConvWidth(const SsmAttention<T>& op) {
  return op.conv_weight == nullptr ? 1 : op.conv_width;
}

// Weight of key j + d in entry j: the taps in the order of the sum.
template <typename T>
LIMPID_INLINE T ConvTap(const SsmAttention<T>& op, int64_t channel, int64_t d) {
  if (op.conv_weight == nullptr) return T{1};
  return op.conv_weight[channel * op.conv_width + op.conv_width - 1 - d];
}

template <typename T>
LIMPID_INLINE T RowScale(const SsmAttention<T>& op, int64_t row,
                         int64_t channel) {
  if (op.row_scale == nullptr) return T{1};
  return op.row_scale[row * op.row_stride + channel];
}

}  // namespace limpid::kernels::cpu
