// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {
namespace {

// Entries whose accumulators stay in the first cache while all channels pass.
constexpr int64_t kBlock = 1024;

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

template <ChannelFold kFold>
struct FoldKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const FoldChannels<T>& op) {
    for (int64_t begin = 0; begin < op.num_entries; begin += kBlock) {
      const int64_t size = std::min(kBlock, op.num_entries - begin);
      T* __restrict sum = op.accumulator + begin;
      for (int64_t c = 0; c < op.num_channels; ++c) {
        const T* slab = op.slab + c * op.num_entries + begin;
        const T weight =
            kFold == ChannelFold::kWeightedSumAbs ? op.weight[c] : T{1};
        for (int64_t e = 0; e < size; ++e) {
          sum[e] = Folded<kFold>(sum[e], slab[e], weight);
        }
      }
    }
  }
};

}  // namespace

template <typename T>
absl::Status Run(const FoldChannels<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const FlushDenormals flush;
  switch (op.fold) {
    case ChannelFold::kSum:
      DispatchSimd<FoldKernel<ChannelFold::kSum>>(op);
      break;
    case ChannelFold::kSumAbs:
      DispatchSimd<FoldKernel<ChannelFold::kSumAbs>>(op);
      break;
    case ChannelFold::kSumPositive:
      DispatchSimd<FoldKernel<ChannelFold::kSumPositive>>(op);
      break;
    case ChannelFold::kSumSquares:
      DispatchSimd<FoldKernel<ChannelFold::kSumSquares>>(op);
      break;
    case ChannelFold::kMax:
      DispatchSimd<FoldKernel<ChannelFold::kMax>>(op);
      break;
    case ChannelFold::kMin:
      DispatchSimd<FoldKernel<ChannelFold::kMin>>(op);
      break;
    case ChannelFold::kWeightedSumAbs:
      DispatchSimd<FoldKernel<ChannelFold::kWeightedSumAbs>>(op);
      break;
  }
  return absl::OkStatus();
}

template absl::Status Run(const FoldChannels<float>&);
template absl::Status Run(const FoldChannels<double>&);

}  // namespace limpid::kernels::cpu
