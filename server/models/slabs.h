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

}  // namespace limpid
