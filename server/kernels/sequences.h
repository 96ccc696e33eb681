// SPDX-License-Identifier: Apache-2.0
//
// Where the sequences of a batch are among the positions of all of them, one
// after the other.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define LIMPID_HOST_DEVICE __host__ __device__
#else
#define LIMPID_HOST_DEVICE
#endif

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

}  // namespace limpid::kernels

#undef LIMPID_HOST_DEVICE
