// SPDX-License-Identifier: Apache-2.0
//
// The implicit attention of a gated S6 block (Mamba-1):
//   alpha = Gamma (S + skip I) Sigma M,  beta = Gamma (S + skip I) Sigma b
// (arXiv:2405.16504; Gamma the gate, S the recurrence, Sigma the activation's
// ratio, M the convolution).
#pragma once

#include <ATen/core/Tensor.h>

#include "server/models/architecture.h"
#include "server/models/kernel_ops.h"

namespace limpid {

// Everything of one forward pass of one sequence that the block's matrix is
// made of, and the weights that it needs beside.
struct S6Trace {
  FrozenSsm ssm;
  at::Tensor conv_weight;  // [D, K]
  at::Tensor conv_bias;    // [D] or undefined
  at::Tensor x;            // [L, D]: what enters the convolution
  at::Tensor conv;         // [L, D]: what leaves it, bias included
  at::Tensor gate;         // [L, D]: silu(z)
  at::Tensor output;       // [L, D]: what enters the output projection
  at::Tensor output_norms;  // [D]: column norms of the output projection
};

// Forms and what they map:
//   full           alpha x + beta = output
//   state          S h = the recurrence's output, h = silu(conv)
//   no-conv        Gamma (S + skip I) Sigma conv = output
//   no-gate        (S + skip I) Sigma M x + bias = output before the gate
//   no-activation  Gamma (S + skip I) M x + bias = the block with the
//                  activation left out and everything else frozen
//   upstream       Gamma S Sigma M x = the block without skip and bias
// With include_skip changed from its default, output changes accordingly.
class S6Attention final : public BlockAttention {
 public:
  explicit S6Attention(S6Trace trace) : trace_(std::move(trace)) {}

  int64_t num_positions() const override { return trace_.x.size(0); }
  int64_t num_channels() const override { return trace_.x.size(1); }
  BlockMap Map(const MatrixForm& form) const override;
  at::Tensor OutputNorms() const override { return trace_.output_norms; }
  absl::Status Visit(const MatrixForm& form, RowRange rows,
                     AttentionSink& sink,
                     const CancelToken& cancel) const override;

 private:
  S6Trace trace_;
};

// Sizes of the slabs that Visit makes: bounded bytes whatever D and L.
struct SlabShape {
  int64_t channels = 0;
  int64_t rows = 0;
};
SlabShape ChooseSlab(int64_t num_channels, int64_t num_rows, int64_t length,
                     int64_t element_bytes, bool on_cpu);

}  // namespace limpid
