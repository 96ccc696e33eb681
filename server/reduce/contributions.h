// SPDX-License-Identifier: Apache-2.0
//
// What each source position adds to the residual stream through a block, as a
// vector of the stream's width, and numbers made of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "server/reduce/sinks.h"

namespace limpid {

// Makes numbers [rows, L] of contributions [rows, L, E] to the rows [begin,
// end).
using ContributionMeasure =
    std::function<at::Tensor(const at::Tensor& contributions, RowRange rows)>;

// The contribution of position j to the output of position i is
//   t[i, j] = weight (alpha[:, i, j] * value[j]),
// weight [E, D] that of the output projection; what a position's own token adds
// past the recurrence counts to t[i, i]. Their sum over j and the projected
// bias is the block's output, exactly.
class ContributionReducer final : public MatrixReducer {
 public:
  // `attention` must outlive the reducer.
  ContributionReducer(const BlockAttention& attention, const MatrixForm& form,
                      RowRange rows, ContributionMeasure measure);
  absl::Status OnSlab(const AttentionSlab& slab) override;
  at::Tensor Finish() override { return matrix_; }
  int64_t rows_at_once() const override;

  // Bytes that it holds at its peak for sequences of L positions and a stream
  // of width E.
  static int64_t Bytes(int64_t length, int64_t width);

 private:
  const BlockAttention& attention_;
  const BlockMap map_;
  const RowRange rows_;
  const ContributionMeasure measure_;
  at::Tensor contributions_;  // of the block of rows that is being made
  at::Tensor matrix_;         // [rows, L]
};

// Norms over E, of order 1 or 2.
ContributionMeasure NormMeasure(int64_t order);

// ALTI (arXiv:2203.04212): how much nearer a contribution brings zero to the
// stream s_i after the block, max(0, |s_i|_1 - |s_i - t[i, j]|_1), where the
// stream before the block counts to t[i, i]; every row divided by its sum. A
// row of zeros becomes the identity's.
ContributionMeasure ProximityMeasure(const BlockAttention& attention,
                                     const MatrixForm& form);

}  // namespace limpid
