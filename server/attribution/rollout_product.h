// SPDX-License-Identifier: Apache-2.0
//
// Products of the layers' matrices, later layers from the left.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace limpid {

// Collects layers first to last. Rows of causal matrices up to a position never
// look beyond it, so matrices may be cut there: [rows, L] stands for its first
// `rows` columns.
class RolloutProduct {
 public:
  // R <- step R.
  void Multiply(const at::Tensor& step);
  // The same with the residual connection: step[i, j] =
  // (A[i, j] + w [i = j]) / (w + sum_j A[i, j]).
  void MultiplyWithResidual(const at::Tensor& attention, double weight);
  // Row `position` of R, of the identity if nothing was multiplied: [L], as
  // `like`.
  at::Tensor Row(int64_t position, const at::Tensor& like) const;

  // Bytes that it holds at its peak, for matrices of L columns.
  static int64_t Bytes(int64_t length) {
    return 4 * length * length * static_cast<int64_t>(sizeof(float));
  }

 private:
  at::Tensor product_;  // [rows, rows]
};

}  // namespace limpid
