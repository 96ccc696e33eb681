// SPDX-License-Identifier: Apache-2.0
//
// How far a block's matrices are from what they must reproduce.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "server/reduce/sinks.h"

namespace limpid::testing {

// Entries [D, rows, L] of every channel. Fails the test if they can't be made.
inline at::Tensor Entries(const BlockAttention& attention,
                          const MatrixForm& form, RowRange rows) {
  ChannelCollector collector({}, attention, rows);
  EXPECT_TRUE(attention.Visit(form, rows, collector, CancelToken()).ok());
  return collector.Finish();
}

// Largest |alpha value + bias - output|, relative to the largest sum of
// absolute terms: with random weights the few terms of an early row can cancel
// in every channel at once. `alpha` is on the CPU, the map anywhere.
inline double IdentityError(const at::Tensor& alpha, const BlockMap& map) {
  const at::Tensor value = map.value.cpu().t().unsqueeze(2);
  const at::Tensor bias = map.bias.cpu();
  const at::Tensor mapped = at::bmm(alpha, value).squeeze(2).t() + bias;
  const at::Tensor terms =
      at::bmm(alpha.abs(), value.abs()).max() + bias.abs().max();
  return ((mapped - map.output.cpu()).abs().max() / terms).item().toDouble();
}

}  // namespace limpid::testing
