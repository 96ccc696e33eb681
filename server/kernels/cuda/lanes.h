// SPDX-License-Identifier: Apache-2.0
//
// How the CUDA kernels of recurrences with a matrix state share one vector of N
// (or P) numbers: kLanes neighbouring threads of a warp, a group, have kOwn of
// them each. Lane l has the numbers l, l + kLanes, l + 2 kLanes, ...; those
// past the last are zeros.
#pragma once

#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

// Calls launch.template operator()<kLanes, kOwn>() with a group that has room
// for `size` numbers, at most kMaxStateSize. Little per thread, since there are
// few heads: their work should be spread over all multiprocessors.
template <typename Launch>
auto WithLanes(int64_t size, const Launch& launch) {
  static_assert(32 * 8 == kMaxStateSize);
  if (size <= 1) return launch.template operator()<1, 1>();
  if (size <= 4) return launch.template operator()<1, 4>();
  if (size <= 16) return launch.template operator()<4, 4>();
  if (size <= 64) return launch.template operator()<8, 8>();
  if (size <= 128) return launch.template operator()<16, 8>();
  return launch.template operator()<32, 8>();
}

// How many of `size` numbers lane `lane` has.
template <int kLanes>
__device__ int OwnCount(int64_t size, int lane) {
  return static_cast<int>((size - lane + kLanes - 1) / kLanes);
}

// Sum over a group, the same in each of its lanes and in any run. All threads
// of the warp must come here.
template <int kLanes, typename T>
__device__ T GroupSum(T x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    x += __shfl_xor_sync(0xffffffffu, x, offset);
  }
  return x;
}

// The largest number of a warp's threads, all of which must come here.
__device__ inline int64_t WarpMax(int64_t x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    x = max(x, __shfl_xor_sync(0xffffffffu, x, offset));
  }
  return x;
}

// One lane's numbers of an operand of one head, at any position.
template <typename T>
struct OwnNumbers {
  const T* data = nullptr;
  int64_t position_stride = 0;
  int64_t stride = 0;

  OwnNumbers() = default;
  __device__ OwnNumbers(const HeadOperand<T>& operand, int64_t sequence,
                        int64_t head, int lane, int lanes)
      : data(operand.data + sequence * operand.sequence_stride +
             head * operand.head_stride + lane * operand.element_stride),
        position_stride(operand.position_stride),
        stride(lanes * operand.element_stride) {}

  // The first `count`, then zeros.
  template <int kOwn>
  __device__ void Load(int64_t i, int count, T (&out)[kOwn]) const {
    const T* at = data + i * position_stride;
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      out[k] = k < count ? __ldg(at + k * stride) : T{0};
    }
  }
  // The first one, which must be there.
  __device__ T First(int64_t i) const {
    return __ldg(data + i * position_stride);
  }
};

}  // namespace limpid::kernels::cuda
