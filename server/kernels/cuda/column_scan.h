// SPDX-License-Identifier: Apache-2.0
//
// The recurrence with a matrix state S [N, P], column by column of S. One
// kernel serves the forward direction and, since the adjoint is a recurrence of
// the same form that runs backwards, two of the three passes of the gradients.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

// At each position, for heads [head_begin, head_end), in this order:
//
//   S += key value^T                               if adds_first
//   projected = S^T right                          if there are left and right
//   out = S^T query + diagonal value               unless outputs_last
//   S = diag(decay) S + left projected^T
//   S += key value^T                               unless adds_first
//   out = S^T query                                if outputs_last
template <typename T>
struct ColumnScan {
  int64_t num_positions = 0;
  const int64_t* begins = nullptr;  // of sequences, as StateScan has it
  int64_t num_heads = 0;            // H
  int64_t key_size = 0;
  int64_t value_size = 0;
  int64_t head_begin = 0;
  int64_t head_end = 0;
  HeadOperand<T> query, key, decay;
  HeadOperand<T> left, right;  // both or neither
  HeadOperand<T> diagonal;     // or null
  HeadOperand<T> value;
  bool backwards = false;  // from the last position to the first
  bool adds_first = false;
  bool outputs_last = false;
  T* out = nullptr;        // [B, L, H, P], or null: not wanted
  T* projected = nullptr;  // [head_end - head_begin, L, P], or null
};

// In state_scan.cu.
template <typename T>
absl::Status Launch(const ColumnScan<T>& op, cudaStream_t stream);

}  // namespace limpid::kernels::cuda
