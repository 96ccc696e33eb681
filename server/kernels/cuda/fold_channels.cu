// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

// Neighbouring entries of a block.
constexpr int kEntries = 32;
// Matrices with fewer entries than this are split by channels as well, so that
// there is work for every multiprocessor.
constexpr int64_t kFewEntries = int64_t{1} << 18;

// kEntries entries by kGroups ranges of channels, joined in their order.
template <ChannelFold kFold, int kGroups, typename T>
__global__ void __launch_bounds__(kEntries* kGroups) Fold(FoldChannels<T> op) {
  __shared__ T parts[kGroups][kEntries];
  const int lane = threadIdx.x % kEntries, group = threadIdx.x / kEntries;
  const int64_t e = int64_t{blockIdx.x} * kEntries + lane;
  T sum = EmptyFold<kFold>();
  if (e < op.num_entries) {
    const int64_t end = op.num_channels * (group + 1) / kGroups;
#pragma unroll 8
    for (int64_t c = op.num_channels * group / kGroups; c < end; ++c) {
      const T weight =
          kFold == ChannelFold::kWeightedSumAbs ? op.weight[c] : T{1};
      sum = Folded<kFold>(sum, op.slab[c * op.slab_stride + e], weight);
    }
  }
  parts[group][lane] = sum;
  __syncthreads();
  if (group > 0 || e >= op.num_entries) return;
  sum = op.accumulator[e];
  for (int part = 0; part < kGroups; ++part) {
    sum = Joined<kFold>(sum, parts[part][lane]);
  }
  op.accumulator[e] = sum;
}

template <ChannelFold kFold, int kGroups, typename T>
absl::Status Launch(const FoldChannels<T>& op, void* stream) {
  const int64_t num_blocks = CeilDiv(op.num_entries, kEntries);
  if (num_blocks == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("FoldChannels", num_blocks));
  Fold<kFold, kGroups, T>
      <<<static_cast<unsigned>(num_blocks), kEntries * kGroups, 0,
         static_cast<cudaStream_t>(stream)>>>(op);
  return CheckLaunch("FoldChannels");
}

}  // namespace

template <typename T>
absl::Status Run(const FoldChannels<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  return WithFold(op.fold, [&]<ChannelFold kFold>() {
    return op.num_entries < kFewEntries ? Launch<kFold, 32>(op, stream)
                                        : Launch<kFold, 4>(op, stream);
  });
}

template absl::Status Run(const FoldChannels<float>&, void*);
template absl::Status Run(const FoldChannels<double>&, void*);

}  // namespace limpid::kernels::cuda
