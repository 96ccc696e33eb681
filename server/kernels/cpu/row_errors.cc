// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>

#include "server/kernels/rows.h"

namespace limpid::kernels::cpu {
namespace {

// The larger one; NaN if either is.
template <typename T>
T Worse(T a, T b) {
  return b > a || b != b ? b : a;
}

}  // namespace

template <typename T>
absl::Status Run(const RowErrors<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  for (int64_t row = 0; row < op.num_rows; ++row) {
    const T* const product = op.product + row * op.product_stride;
    const T* const bias =
        op.bias == nullptr ? nullptr : op.bias + row * op.bias_stride;
    const T* const output = op.output + row * op.output_stride;
    T error = 0, size = 0;
    for (int64_t c = 0; c < op.num_channels; ++c) {
      const T mapped = bias == nullptr ? product[c] : product[c] + bias[c];
      error = Worse(error, std::abs(mapped - output[c]));
      size = Worse(size, std::abs(output[c]));
    }
    op.error[row] = error / Worse(T{1e-30}, size);
  }
  return absl::OkStatus();
}

template absl::Status Run(const RowErrors<float>&);
template absl::Status Run(const RowErrors<double>&);

}  // namespace limpid::kernels::cpu
