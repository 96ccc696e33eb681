// SPDX-License-Identifier: Apache-2.0
//
// Folding of channels on the device.
#pragma once

#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

// What a sum begins with.
template <ChannelFold kFold>
__host__ __device__ constexpr float EmptyFold() {
  if (kFold == ChannelFold::kMax) return -__builtin_huge_valf();
  if (kFold == ChannelFold::kMin) return __builtin_huge_valf();
  return 0;
}

// sum with the entry x of one more channel.
template <ChannelFold kFold, typename T>
__device__ T Folded(T sum, T x, T weight) {
  // A modifier of the addition that follows, unlike a comparison.
  const T magnitude = fabs(x);
  switch (kFold) {
    case ChannelFold::kSum:
      return sum + x;
    case ChannelFold::kSumAbs:
      return sum + magnitude;
    case ChannelFold::kSumPositive:
      return sum + (x > T{0} ? x : T{0});
    case ChannelFold::kSumSquares:
      return sum + x * x;
    case ChannelFold::kMax:
      return x > sum ? x : sum;
    case ChannelFold::kMin:
      return x < sum ? x : sum;
    case ChannelFold::kWeightedSumAbs:
      return sum + weight * magnitude;
  }
  return sum;
}

// Two sums over different channels as one.
template <ChannelFold kFold, typename T>
__device__ T Joined(T sum, T other) {
  if (kFold == ChannelFold::kMax) return other > sum ? other : sum;
  if (kFold == ChannelFold::kMin) return other < sum ? other : sum;
  return sum + other;
}

// Calls launch.template operator()<kFold>().
template <typename Launch>
absl::Status WithFold(ChannelFold fold, const Launch& launch) {
  switch (fold) {
    case ChannelFold::kSum:
      return launch.template operator()<ChannelFold::kSum>();
    case ChannelFold::kSumAbs:
      return launch.template operator()<ChannelFold::kSumAbs>();
    case ChannelFold::kSumPositive:
      return launch.template operator()<ChannelFold::kSumPositive>();
    case ChannelFold::kSumSquares:
      return launch.template operator()<ChannelFold::kSumSquares>();
    case ChannelFold::kMax:
      return launch.template operator()<ChannelFold::kMax>();
    case ChannelFold::kMin:
      return launch.template operator()<ChannelFold::kMin>();
    case ChannelFold::kWeightedSumAbs:
      return launch.template operator()<ChannelFold::kWeightedSumAbs>();
  }
  return MakeError(absl::StatusCode::kInternal, "KERNEL_ARGUMENT",
                   "unknown fold");
}

// Calls launch.template operator()<kFold, kProducts>().
template <typename Launch>
absl::Status WithFoldAndProducts(ChannelFold fold, bool products,
                                 const Launch& launch) {
  return WithFold(fold, [&]<ChannelFold kFold>() {
    return products ? launch.template operator()<kFold, true>()
                    : launch.template operator()<kFold, false>();
  });
}

}  // namespace limpid::kernels::cuda
