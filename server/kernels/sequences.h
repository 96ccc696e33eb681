// SPDX-License-Identifier: Apache-2.0
//
// Where the sequences of a batch are among the positions of all of them, one
// after the other.
#pragma once

#include <cstdint>

#include "server/kernels/host_device.h"

namespace limpid::kernels {

// Positions [begin, end).
struct Span {
  int64_t begin = 0;
  int64_t end = 0;

  LIMPID_HOST_DEVICE int64_t size() const { return end - begin; }
};

// Those of sequence b: all have `length`, or, unless it is null, `begins` says
// where each begins and where the last one ends.
LIMPID_HOST_DEVICE inline Span SpanOf(int64_t b, int64_t length,
                                      const int64_t* begins) {
  if (begins == nullptr) return {b * length, (b + 1) * length};
  return {begins[b], begins[b + 1]};
}

// The same as operands with a stride between sequences count positions: from 0
// in each sequence, unless `begins` says where it begins.
LIMPID_HOST_DEVICE inline Span SpanInOperands(int64_t b, int64_t length,
                                              const int64_t* begins) {
  return SpanOf(begins == nullptr ? 0 : b, length, begins);
}
// And the positions of an output without such a stride before these.
LIMPID_HOST_DEVICE inline int64_t PositionsBefore(int64_t b, int64_t length,
                                                  const int64_t* begins) {
  return begins == nullptr ? b * length : 0;
}

}  // namespace limpid::kernels
