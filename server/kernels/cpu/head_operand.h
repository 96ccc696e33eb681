// SPDX-License-Identifier: Apache-2.0
//
// How the CPU kernels of recurrences with a matrix state read their operands.
#pragma once

#include <cstdint>

#include "server/kernels/cpu/simd.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {

// Which sequence and head one of [0, num_sequences num_heads) is.
struct HeadOf {
  template <typename T>
  LIMPID_INLINE HeadOf(const StateRecurrence<T>& recurrence, int64_t head)
      : sequence(head / recurrence.num_heads),
        head(head % recurrence.num_heads) {}
  int64_t sequence;
  int64_t head;
};

// Where element 0 of position i is. Only for operands that there are.
template <typename T>
LIMPID_INLINE const T* At(const HeadOperand<T>& operand, const HeadOf& head,
                          int64_t i) {
  return operand.data + head.sequence * operand.sequence_stride +
         i * operand.position_stride + head.head * operand.head_stride;
}

// out = `count` numbers `stride` apart, then zeros.
template <int kWidth, typename T>
LIMPID_INLINE void Gather(const T* in, int64_t stride, int count,
                          T* __restrict out) {
  if (count == kWidth && stride == 1) {
    for (int w = 0; w < kWidth; ++w) out[w] = in[w];
  } else if (count == kWidth && stride == 0) {
    const T value = *in;
    for (int w = 0; w < kWidth; ++w) out[w] = value;
  } else {
    for (int w = 0; w < kWidth; ++w) out[w] = 0;
    for (int w = 0; w < count; ++w) out[w] = in[w * stride];
  }
}

// The other way around.
template <int kWidth, typename T>
LIMPID_INLINE void Scatter(const T* in, int64_t stride, int count,
                           T* __restrict out) {
  if (count == kWidth && stride == 1) {
    for (int w = 0; w < kWidth; ++w) out[w] = in[w];
  } else {
    for (int w = 0; w < count; ++w) out[w * stride] = in[w];
  }
}

// The same for a number of elements that is only known when it runs.
template <typename T>
LIMPID_INLINE void GatherElements(const T* in, int64_t stride, int64_t count,
                                  T* __restrict out) {
  if (stride == 1) {
    for (int64_t n = 0; n < count; ++n) out[n] = in[n];
  } else {
    for (int64_t n = 0; n < count; ++n) out[n] = in[n * stride];
  }
}

}  // namespace limpid::kernels::cpu
