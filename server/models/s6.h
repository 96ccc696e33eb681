// SPDX-License-Identifier: Apache-2.0
//
// One direction of an S6 block: convolution, activation, selection and
// recurrence (arXiv:2312.00752, algorithm 2). Mamba has one, Vision Mamba two.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "server/models/factored_attention.h"
#include "server/models/kernel_ops.h"
#include "server/models/pass.h"
#include "server/models/weights.h"

namespace limpid {

// D channels, N states, R rank of the step, K convolution width.
struct S6Sizes {
  int64_t inner = 0;
  int64_t state = 0;
  int64_t rank = 0;
  int64_t conv_width = 0;
  // Epsilon of weightless norms of step, B and C, as FalconMamba has them.
  std::optional<double> selection_norm;
};

struct S6Weights {
  at::Tensor conv_weight, conv_bias;  // [D, K], [D] or undefined
  at::Tensor x_weight;                // [R + 2N, D]
  at::Tensor step_weight, step_bias;  // [D, R], [D]
  at::Tensor a;                       // [D, N]: A_log until FinishS6
  at::Tensor skip;                    // [D]
};

// Takes the tensors of one direction. Names are `mixer` + conv1d, x_proj,
// dt_proj + `suffix`, and A_log or A_b_log, D or D_b.
S6Weights TakeS6(WeightReader& reader, const std::string& mixer,
                 const std::string& suffix, const S6Sizes& sizes,
                 bool conv_bias);
// From tensors as they are stored to those that RunS6 takes.
void FinishS6(S6Weights& weights);

// [B, L, D] ([B, L, N] for b and c). Only y is there if nobody looks at the
// block and wants no factors.
struct S6Run {
  // In the direction's own time.
  at::Tensor conv;
  at::Tensor ratio;
  at::Tensor delta, b, c;
  // In the sequence's time.
  at::Tensor y;     // what follows the recurrence with skip
  at::Tensor gate;  // silu(gate_input)

  // Of all sequences, as a BlockBatch takes it.
  DirectionTrace Trace(const S6Weights& weights) const;
};
// x is [B, L, D] in the sequence's time, as is what `after` has.
S6Run RunS6(const at::Tensor& x, const S6Weights& weights, const S6Sizes& sizes,
            const AfterScan& after, const Pass& pass);

// Both directions of a block: what `after` has follows their sum. On a GPU the
// second one's work up to its recurrence is done beside the first one's.
struct S6Both {
  S6Run ahead, back;
};
S6Both RunS6BothWays(const at::Tensor& x, const S6Weights& ahead,
                     const S6Weights& back, const S6Sizes& sizes,
                     AfterScan after, const Pass& pass);

// Numbers and operations of one direction per position.
struct S6Cost {
  int64_t forward = 0;
  int64_t gradient = 0;
  int64_t backward = 0;
  double flops = 0;
  double entry_flops = 0;
};
S6Cost CostOfS6(const S6Sizes& sizes);

}  // namespace limpid
