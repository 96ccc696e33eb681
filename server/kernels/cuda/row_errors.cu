// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/rows.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kRows = 4;  // of a block of threads

// The larger one; NaN if either is.
template <typename T>
__device__ T Worse(T a, T b) {
  return b > a || b != b ? b : a;
}

// A warp per row.
template <typename T>
__global__ void __launch_bounds__(kRows* kWarp) Compare(RowErrors<T> op) {
  const int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= op.num_rows) return;
  T error = 0, size = 0;
#pragma unroll 8
  for (int64_t c = lane; c < op.num_channels; c += kWarp) {
    const T output = __ldg(op.output + row * op.output_stride + c);
    T mapped = __ldg(op.product + row * op.product_stride + c);
    if (op.bias != nullptr) {
      mapped += __ldg(op.bias + row * op.bias_stride + c);
    }
    error = Worse(error, fabs(mapped - output));
    size = Worse(size, fabs(output));
  }
#pragma unroll
  for (int half = kWarp / 2; half > 0; half /= 2) {
    error = Worse(error, __shfl_xor_sync(0xffffffff, error, half));
    size = Worse(size, __shfl_xor_sync(0xffffffff, size, half));
  }
  if (lane == 0) op.error[row] = error / Worse(T{1e-30}, size);
}

}  // namespace

template <typename T>
absl::Status Run(const RowErrors<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  if (op.num_rows == 0) return absl::OkStatus();
  const int64_t num_blocks = CeilDiv(op.num_rows, kRows);
  LIMPID_RETURN_IF_ERROR(CheckGrid("RowErrors", num_blocks));
  Compare<T><<<static_cast<unsigned>(num_blocks), kRows * kWarp, 0,
               static_cast<cudaStream_t>(stream)>>>(op);
  return CheckLaunch("RowErrors");
}

template absl::Status Run(const RowErrors<float>&, void*);
template absl::Status Run(const RowErrors<double>&, void*);

}  // namespace limpid::kernels::cuda
