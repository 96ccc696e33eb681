// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/rows.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// The larger one; NaN if either is.
template <typename T>
__device__ T Worse(T a, T b) {
  return b > a || b != b ? b : a;
}

// A block per row.
template <typename T>
__global__ void __launch_bounds__(kThreads) Compare(RowErrors<T> op) {
  __shared__ T errors[kThreads];
  __shared__ T sizes[kThreads];
  const int64_t row = blockIdx.x;
  const int tid = threadIdx.x;
  T error = 0, size = 0;
  for (int64_t c = tid; c < op.num_channels; c += kThreads) {
    const T output = op.output[row * op.output_stride + c];
    T mapped = op.product[row * op.product_stride + c];
    if (op.bias != nullptr) mapped += op.bias[row * op.bias_stride + c];
    error = Worse(error, fabs(mapped - output));
    size = Worse(size, fabs(output));
  }
  errors[tid] = error;
  sizes[tid] = size;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (tid < half) {
      errors[tid] = Worse(errors[tid], errors[tid + half]);
      sizes[tid] = Worse(sizes[tid], sizes[tid + half]);
    }
  }
  if (tid == 0) op.error[row] = errors[0] / Worse(T{1e-30}, sizes[0]);
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
