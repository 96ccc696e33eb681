// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/rows.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;

// The larger one; NaN if either is.
template <typename T>
__device__ T Worse(T a, T b) {
  return b > a || b != b ? b : a;
}

template <typename T>
__device__ T WorstOfWarp(T x) {
#pragma unroll
  for (int half = kWarp / 2; half > 0; half /= 2) {
    x = Worse(x, __shfl_xor_sync(0xffffffff, x, half));
  }
  return x;
}

// A block per row.
template <typename T>
__global__ void __launch_bounds__(kThreads) Compare(RowErrors<T> op) {
  __shared__ T errors[kWarps];
  __shared__ T sizes[kWarps];
  const int64_t row = blockIdx.x;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  T error = 0, size = 0;
#pragma unroll 4
  for (int64_t c = threadIdx.x; c < op.num_channels; c += kThreads) {
    const T output = __ldg(op.output + row * op.output_stride + c);
    T mapped = __ldg(op.product + row * op.product_stride + c);
    if (op.bias != nullptr) {
      mapped += __ldg(op.bias + row * op.bias_stride + c);
    }
    error = Worse(error, fabs(mapped - output));
    size = Worse(size, fabs(output));
  }
  error = WorstOfWarp(error);
  size = WorstOfWarp(size);
  if (lane == 0) {
    errors[warp] = error;
    sizes[warp] = size;
  }
  __syncthreads();
  if (warp > 0) return;
  error = WorstOfWarp(lane < kWarps ? errors[lane] : T{0});
  size = WorstOfWarp(lane < kWarps ? sizes[lane] : T{0});
  if (lane == 0) op.error[row] = error / Worse(T{1e-30}, size);
}

}  // namespace

template <typename T>
absl::Status Run(const RowErrors<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  if (op.num_rows == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("RowErrors", op.num_rows));
  Compare<T><<<static_cast<unsigned>(op.num_rows), kThreads, 0,
               static_cast<cudaStream_t>(stream)>>>(op);
  return CheckLaunch("RowErrors");
}

template absl::Status Run(const RowErrors<float>&, void*);
template absl::Status Run(const RowErrors<double>&, void*);

}  // namespace limpid::kernels::cuda
