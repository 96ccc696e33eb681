// SPDX-License-Identifier: Apache-2.0
//
// The diagonal of SsmAttention's matrices. Only what a position makes of itself
// is there: no decay, and of the convolution the last tap.
#pragma once

#include <cstdint>

#include "server/kernels/host_device.h"
#include "server/kernels/ops.h"

namespace limpid::kernels {

// One sequence's, at one position.
template <typename T>
class SsmDiagonal {
 public:
  LIMPID_HOST_DEVICE SsmDiagonal(const SsmAttentionFold<T>& op,
                                 int64_t sequence, int64_t position)
      : attention_(op.attention) {
    const SelectiveSsm<T>& ssm = attention_.ssm;
    const auto& strides = op.sequence_strides;
    const T* const b = ssm.b + sequence * strides.b + position * ssm.b_stride;
    const T* const c = ssm.c + sequence * strides.c + position * ssm.c_stride;
    for (int64_t n = 0; n < ssm.state_size; ++n) input_ += b[n] * c[n];
    delta_ = ssm.delta + sequence * strides.delta + position * ssm.delta_stride;
    if (attention_.source_scale != nullptr) {
      source_scale_ = attention_.source_scale +
                      sequence * strides.source_scale +
                      position * attention_.source_stride;
    }
    if (attention_.row_scale != nullptr) {
      row_scale_ = attention_.row_scale + sequence * strides.row_scale +
                   position * attention_.row_stride;
    }
  }

  // Of channel c.
  LIMPID_HOST_DEVICE T At(int64_t c) const {
    T entry = delta_[c] * input_;
    if (attention_.ssm.skip != nullptr) entry += attention_.ssm.skip[c];
    if (source_scale_ != nullptr) entry *= source_scale_[c];
    if (attention_.conv_weight != nullptr) {
      const int64_t width = attention_.conv_width;
      entry *= attention_.conv_weight[c * width + width - 1];
    }
    return row_scale_ == nullptr ? entry : entry * row_scale_[c];
  }

 private:
  const SsmAttention<T>& attention_;
  T input_ = 0;  // b . c
  const T* delta_ = nullptr;
  const T* source_scale_ = nullptr;
  const T* row_scale_ = nullptr;
};

}  // namespace limpid::kernels
