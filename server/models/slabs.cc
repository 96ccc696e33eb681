// SPDX-License-Identifier: Apache-2.0
#include "server/models/slabs.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "server/kernels/ops.h"

namespace limpid {

SlabShape ChooseSlab(int64_t num_channels, int64_t num_rows, int64_t length,
                     int64_t element_bytes, bool on_cpu) {
  // On the CPU a slab should still be in the cache when the sink reads it; on
  // a GPU it should fill the device.
  const int64_t budget =
      on_cpu ? int64_t{1} << 20 : int64_t{64} << 20;
  constexpr int64_t kFewestRows = 64;
  const int64_t row_bytes = length * element_bytes;
  SlabShape shape;
  shape.rows = std::min(num_rows, std::max(kFewestRows, budget / row_bytes));
  shape.channels = std::clamp<int64_t>(budget / (shape.rows * row_bytes), 1,
                                       num_channels);
  if (on_cpu) {
    shape.channels = std::min(
        num_channels, std::max<int64_t>(shape.channels, at::get_num_threads()));
  }
  return shape;
}

HeadRows HeadRowsOnGpu(int64_t num_heads, int64_t num_channels,
                       int64_t length) {
  constexpr int64_t kBudget = int64_t{256} << 20;
  constexpr int64_t kBlockRows = kernels::HeadsFold<float>::kBlockRows;
  constexpr int64_t kBlockColumns = kernels::HeadsFold<float>::kBlockColumns;
  const int64_t row_bytes =
      (num_heads * length + (length / kBlockColumns + 1) * num_channels) *
      static_cast<int64_t>(sizeof(float));
  // Ranges of about the same size.
  const int64_t most = std::max(kBlockRows, kBudget / row_bytes);
  const int64_t ranges = (length + most - 1) / most;
  const int64_t rows = (length + ranges - 1) / ranges;
  HeadRows range;
  range.rows = std::min(length, (rows + kBlockRows - 1) / kBlockRows * kBlockRows);
  range.bytes = range.rows * row_bytes;
  return range;
}

}  // namespace limpid
