// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"
#include "server/kernels/ssm_diagonal.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 128;

// A block per row. Channels are folded in an order that is always the same.
template <ChannelFold kFold, typename T>
__global__ void __launch_bounds__(kThreads) Join(JoinDirections<T> op) {
  __shared__ T sums[kThreads];
  const int tid = threadIdx.x;
  const int64_t length = op.ahead.attention.ssm.num_positions;
  const int64_t row = op.row_begin + blockIdx.x;
  const int64_t sequence = row / length, i = row % length;
  const SsmDiagonal<T> ahead(op.ahead, sequence, i);
  const SsmDiagonal<T> back(op.back, sequence, length - 1 - i);
  T sum = EmptyFold<kFold>();
  for (int64_t c = tid; c < op.ahead.attention.ssm.num_channels;
       c += kThreads) {
    const T weight =
        kFold == ChannelFold::kWeightedSumAbs ? op.ahead.weight[c] : T{1};
    sum = Folded<kFold>(sum, ahead.At(c) + back.At(c), weight);
  }
  sums[tid] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (tid < half) sums[tid] = Joined<kFold>(sums[tid], sums[tid + half]);
  }
  __syncthreads();
  const T* const of_ahead = op.ahead.accumulator + row * length;
  // Column j is this one's element -j.
  const T* const of_back = op.back.accumulator +
                           ((sequence + 1) * length - 1 - i) * length + length -
                           1;
  for (int64_t j = tid; j < length; j += kThreads) {
    op.out[row * length + j] = j < i   ? of_ahead[j]
                               : j > i ? of_back[-j]
                                       : sums[0];
  }
}

}  // namespace

template <typename T>
absl::Status Run(const JoinDirections<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const int64_t rows = op.row_end - op.row_begin;
  if (rows == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("JoinDirections", rows));
  return WithFold(op.ahead.fold, [&]<ChannelFold kFold>() {
    Join<kFold><<<static_cast<unsigned>(rows), kThreads, 0,
                  static_cast<cudaStream_t>(stream)>>>(op);
    return CheckLaunch("JoinDirections");
  });
}

template absl::Status Run(const JoinDirections<float>&, void*);
template absl::Status Run(const JoinDirections<double>&, void*);

}  // namespace limpid::kernels::cuda
