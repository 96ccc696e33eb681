// SPDX-License-Identifier: Apache-2.0
//
// What all ops that fold attention on a GPU take from an AttentionFold.
#pragma once

#include <ATen/ATen.h>

#include "server/models/kernel_dispatch.h"
#include "server/models/kernel_ops.h"

namespace limpid {

// Runs an op of type Op, which has what `fold` says when set_inputs(op) gives
// it the rest; false: it does not take these inputs, or this build or device
// has no such kernel.
template <typename Op, typename SetInputs>
bool FoldOnGpu(const AttentionFold& fold, const SetInputs& set_inputs) {
#ifdef LIMPID_WITH_CUDA
  const at::Tensor& matrix = fold.matrix;
  if (!matrix.is_cuda() || matrix.scalar_type() != at::kFloat) return false;
  TORCH_CHECK(matrix.is_contiguous());
  Op op;
  op.fold = fold.fold;
  op.weight = Data<float>(fold.weight);
  op.accumulator = matrix.mutable_data_ptr<float>();
  if (fold.product.defined()) {
    TORCH_CHECK(fold.product.is_contiguous());
    op.value = Data<float>(fold.value);
    op.value_stride = RowStride(fold.value);
    op.product = fold.product.mutable_data_ptr<float>();
  }
  set_inputs(op);
  if (!kernels::cuda::CanFold(op)) return false;
  const at::Tensor scratch = at::empty({kernels::cuda::FoldScratchBytes(op)},
                                       matrix.options().dtype(at::kByte));
  op.scratch = scratch.mutable_data_ptr();
  RunOnGpu(matrix, op);
  return true;
#else
  return false;
#endif
}

}  // namespace limpid
