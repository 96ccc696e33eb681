// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 128;

// One thread per channel and position; neighbours are channels.
template <typename T>
__global__ void Convolve(CausalConv1d<T> op, int64_t channel_blocks) {
  const int64_t i = blockIdx.x / channel_blocks;
  const int64_t c = blockIdx.x % channel_blocks * kThreads + threadIdx.x;
  if (c >= op.num_channels) return;
  T sum = op.bias == nullptr ? T{0} : op.bias[c];
  for (int64_t k = 0; k < op.width; ++k) {
    const int64_t j = i - (op.width - 1) + k;
    if (j >= 0) sum += op.weight[c * op.width + k] * op.x[j * op.x_stride + c];
  }
  op.out[i * op.out_stride + c] = sum;
}

}  // namespace

template <typename T>
absl::Status Run(const CausalConv1d<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const int64_t channel_blocks = CeilDiv(op.num_channels, kThreads);
  const int64_t num_blocks = channel_blocks * op.num_positions;
  LIMPID_RETURN_IF_ERROR(CheckGrid("CausalConv1d", num_blocks));
  Convolve<T><<<static_cast<unsigned>(num_blocks), kThreads, 0,
                static_cast<cudaStream_t>(stream)>>>(op, channel_blocks);
  return CheckLaunch("CausalConv1d");
}

template absl::Status Run(const CausalConv1d<float>&, void*);
template absl::Status Run(const CausalConv1d<double>&, void*);

}  // namespace limpid::kernels::cuda
