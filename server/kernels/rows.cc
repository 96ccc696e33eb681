// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/rows.h"

#include "absl/status/status.h"
#include "server/base/status.h"
#include "server/kernels/checker.h"

namespace limpid::kernels {

template <typename T>
absl::Status Validate(const SsmRowsFold<T>& op) {
  Checker check("SsmRowsFold");
  SsmAttention<T> attention = op.attention;
  attention.out = op.accumulator;
  LIMPID_RETURN_IF_ERROR(Validate(attention));
  check.AtMost(attention.row_end - attention.row_begin, kMaxFoldedRows, "rows");
  check.Fold(op, attention.ssm.num_channels, op.value_stride);
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const RowErrors<T>& op) {
  Checker check("RowErrors");
  check.Range(0, op.num_rows, op.num_rows, "rows");
  check.Positive(op.num_channels, "num_channels");
  check.NotNull(op.product, "product");
  check.NotNull(op.output, "output");
  check.NotNull(op.error, "error");
  check.AtLeast(op.product_stride, op.num_channels, "product_stride");
  check.AtLeast(op.output_stride, op.num_channels, "output_stride");
  if (op.bias != nullptr && op.bias_stride != 0) {
    check.AtLeast(op.bias_stride, op.num_channels, "bias_stride");
  }
  return check.ToStatus();
}

template absl::Status Validate(const SsmRowsFold<float>&);
template absl::Status Validate(const SsmRowsFold<double>&);
template absl::Status Validate(const RowErrors<float>&);
template absl::Status Validate(const RowErrors<double>&);

}  // namespace limpid::kernels
