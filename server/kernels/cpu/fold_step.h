// SPDX-License-Identifier: Apache-2.0
//
// Folding of channels on the CPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "server/kernels/cpu/simd.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {

inline bool IsExtreme(ChannelFold fold) {
  return fold == ChannelFold::kMax || fold == ChannelFold::kMin;
}

// What a fold gives of no channels.
template <typename T>
T EmptyFold(ChannelFold fold) {
  if (fold == ChannelFold::kMax) return -std::numeric_limits<T>::infinity();
  if (fold == ChannelFold::kMin) return std::numeric_limits<T>::infinity();
  return 0;
}

// sum with the entry x of one more channel.
template <ChannelFold kFold, typename T>
LIMPID_INLINE T Folded(T sum, T x, T weight) {
  if constexpr (kFold == ChannelFold::kSum) return sum + x;
  if constexpr (kFold == ChannelFold::kSumAbs) return sum + std::abs(x);
  if constexpr (kFold == ChannelFold::kSumPositive) {
    return sum + (x > T{0} ? x : T{0});
  }
  if constexpr (kFold == ChannelFold::kSumSquares) return sum + x * x;
  if constexpr (kFold == ChannelFold::kMax) return x > sum ? x : sum;
  if constexpr (kFold == ChannelFold::kMin) return x < sum ? x : sum;
  return sum + weight * std::abs(x);
}

// Calls step.Run<kFold>(), which must be LIMPID_INLINE.
template <typename Step>
LIMPID_INLINE void WithFold(ChannelFold fold, const Step& step) {
  switch (fold) {
    case ChannelFold::kSum:
      return step.template Run<ChannelFold::kSum>();
    case ChannelFold::kSumAbs:
      return step.template Run<ChannelFold::kSumAbs>();
    case ChannelFold::kSumPositive:
      return step.template Run<ChannelFold::kSumPositive>();
    case ChannelFold::kSumSquares:
      return step.template Run<ChannelFold::kSumSquares>();
    case ChannelFold::kMax:
      return step.template Run<ChannelFold::kMax>();
    case ChannelFold::kMin:
      return step.template Run<ChannelFold::kMin>();
    case ChannelFold::kWeightedSumAbs:
      return step.template Run<ChannelFold::kWeightedSumAbs>();
  }
}

}  // namespace limpid::kernels::cpu
