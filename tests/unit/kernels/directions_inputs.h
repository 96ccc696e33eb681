// SPDX-License-Identifier: Apache-2.0
//
// Two sequences of a block of two directions, and what JoinDirections is to
// make of their folds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "server/kernels/ops.h"
#include "tests/reference/rows.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {

template <typename T>
struct Directions {
  static constexpr int64_t kSequences = 2;

  Directions(int64_t length, int64_t channels)
      : length(length),
        ahead({kSequences * length, channels, 5, 3}, 0.3, 8, /*seed=*/1),
        back({kSequences * length, channels, 4, 2}, 0.3, 8, /*seed=*/2) {
    std::mt19937_64 g(7);
    const int64_t entries = kSequences * length * length;
    weight = Values<T>::Random(channels, 0, 1, g);
    of_ahead = Values<T>::Random(entries, -1, 1, g);
    of_back = Values<T>::Random(entries, -1, 1, g);
  }

  // Without accumulators and weight.
  template <typename U>
  SsmAttentionFold<U> FoldOf(const Inputs<T>& in, SsmAttention<U> attention,
                             ChannelFold fold) const {
    SsmAttentionFold<U> op;
    op.attention = attention;
    op.attention.ssm.num_positions = length;
    op.attention.row_end = length;
    op.num_sequences = kSequences;
    const int64_t step = length * in.stride;
    const int64_t state_step = length * in.state_stride;
    op.sequence_strides = {step, state_step, state_step, step, step, step};
    op.fold = fold;
    return op;
  }
  template <typename U>
  JoinDirections<U> Join(const SsmAttention<U>& of_ahead_block,
                         const SsmAttention<U>& of_back_block,
                         ChannelFold fold) const {
    JoinDirections<U> op;
    op.ahead = FoldOf(ahead, of_ahead_block, fold);
    op.back = FoldOf(back, of_back_block, fold);
    op.row_end = kSequences * length;
    return op;
  }
  std::vector<double> Expected(ChannelFold fold) const {
    std::vector<double> out(kSequences * length * length);
    std::vector<double> folds[] = {Exact(of_ahead), Exact(of_back)};
    JoinDirections<double> op =
        Join(ahead.ExactAttention(), back.ExactAttention(), fold);
    op.ahead.weight = op.back.weight = weight.exact();
    op.ahead.accumulator = folds[0].data();
    op.back.accumulator = folds[1].data();
    op.out = out.data();
    reference::Run(op);
    return out;
  }
  std::vector<double> Exact(const Values<T>& values) const {
    return {values.exact(), values.exact() + kSequences * length * length};
  }

  int64_t length;
  Inputs<T> ahead, back;
  Values<T> weight, of_ahead, of_back;
};

}  // namespace limpid::kernels
