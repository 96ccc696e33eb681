// SPDX-License-Identifier: Apache-2.0
//
// How the attention of a block is cut into slabs.
#pragma once

#include <cstdint>

namespace limpid {

// Channels and rows of a slab.
struct SlabShape {
  int64_t channels = 1;
  int64_t rows = 1;
};
SlabShape ChooseSlab(int64_t num_channels, int64_t num_rows, int64_t length,
                     int64_t element_bytes, bool on_cpu);

// Rows of the matrices of all heads that are made on a GPU at the same time for
// their channels to be folded, and the bytes that these take with what the fold
// adds to them, float32.
struct HeadRows {
  int64_t rows = 1;
  int64_t bytes = 0;
};
HeadRows HeadRowsOnGpu(int64_t num_heads, int64_t num_channels, int64_t length);

}  // namespace limpid
