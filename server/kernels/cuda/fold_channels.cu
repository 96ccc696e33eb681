// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <ChannelFold kFold, typename T>
__device__ T Folded(T sum, T x, T weight) {
  const T magnitude = x < T{0} ? -x : x;
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

// One thread per entry, the channels in order.
template <ChannelFold kFold, typename T>
__global__ void Fold(FoldChannels<T> op) {
  const int64_t e = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (e >= op.num_entries) return;
  T sum = op.accumulator[e];
  for (int64_t c = 0; c < op.num_channels; ++c) {
    const T weight =
        kFold == ChannelFold::kWeightedSumAbs ? op.weight[c] : T{1};
    sum = Folded<kFold>(sum, op.slab[c * op.num_entries + e], weight);
  }
  op.accumulator[e] = sum;
}

template <ChannelFold kFold, typename T>
absl::Status Launch(const FoldChannels<T>& op, void* stream) {
  const int64_t num_blocks = CeilDiv(op.num_entries, kThreads);
  if (num_blocks == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("FoldChannels", num_blocks));
  Fold<kFold, T><<<static_cast<unsigned>(num_blocks), kThreads, 0,
                   static_cast<cudaStream_t>(stream)>>>(op);
  return CheckLaunch("FoldChannels");
}

}  // namespace

template <typename T>
absl::Status Run(const FoldChannels<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  switch (op.fold) {
    case ChannelFold::kSum:
      return Launch<ChannelFold::kSum>(op, stream);
    case ChannelFold::kSumAbs:
      return Launch<ChannelFold::kSumAbs>(op, stream);
    case ChannelFold::kSumPositive:
      return Launch<ChannelFold::kSumPositive>(op, stream);
    case ChannelFold::kSumSquares:
      return Launch<ChannelFold::kSumSquares>(op, stream);
    case ChannelFold::kMax:
      return Launch<ChannelFold::kMax>(op, stream);
    case ChannelFold::kMin:
      return Launch<ChannelFold::kMin>(op, stream);
    case ChannelFold::kWeightedSumAbs:
      return Launch<ChannelFold::kWeightedSumAbs>(op, stream);
  }
  return MakeError(absl::StatusCode::kInternal, "KERNEL_ARGUMENT",
                   "FoldChannels: unknown fold");
}

template absl::Status Run(const FoldChannels<float>&, void*);
template absl::Status Run(const FoldChannels<double>&, void*);

}  // namespace limpid::kernels::cuda
