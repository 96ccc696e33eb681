// SPDX-License-Identifier: Apache-2.0
//
// From tensors to kernels: by device and element type, on threads of the CPU or
// on the current stream of a GPU.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#ifdef LIMPID_WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <mutex>
#include <stdexcept>
#include <string>

#include "server/kernels/ops.h"
#include "server/kernels/wkv.h"
#include "server/models/kernel_ops.h"
#include "server/models/packing.h"

namespace limpid {

// Kernels report misuse by our own code; above them exceptions are caught at
// the seam.
inline void OrThrow(const absl::Status& status) {
  if (!status.ok()) throw std::logic_error(std::string(status.message()));
}

template <typename T>
const T* Data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<T>() : nullptr;
}

// Of [L, n], or of [B, L, n].
inline int64_t RowStride(const at::Tensor& tensor) {
  if (!tensor.defined()) return 0;
  TORCH_CHECK((tensor.dim() == 2 || tensor.dim() == 3) &&
                  (tensor.size(-1) <= 1 || tensor.stride(-1) == 1),
              "expected [L, n] with contiguous rows");
  return tensor.stride(-2);
}

// Of [B, L, n]; of one sequence alone, 0.
inline int64_t SequenceStride(const at::Tensor& tensor) {
  return tensor.defined() && tensor.dim() == 3 ? tensor.stride(0) : 0;
}

// Where packed sequences begin, or null, for an op on the device of `where`.
inline const int64_t* Begins(const Packing& packing, const at::Tensor& where) {
  const at::Tensor& begins = packing.begins();
  TORCH_CHECK(!begins.defined() || begins.device() == where.device());
  return Data<int64_t>(begins);
}

// The factors around a recurrence, in an op that has them.
template <typename T, typename Op>
void SetFactors(const FrozenFactors& factors, Op& op) {
  op.source_scale = Data<T>(factors.source_scale);
  op.source_stride = RowStride(factors.source_scale);
  op.conv_weight = Data<T>(factors.conv_weight);
  op.conv_width =
      factors.conv_weight.defined() ? factors.conv_weight.size(1) : 0;
  op.row_scale = Data<T>(factors.row_scale);
  op.row_stride = RowStride(factors.row_scale);
}

#ifdef LIMPID_WITH_CUDA
// Runs an op in one piece on the current stream of a GPU.
template <typename Op>
void RunOnGpu(const at::Tensor& where, const Op& op) {
  const c10::cuda::CUDAGuard guard(where.device());
  OrThrow(kernels::cuda::Run(
      op, c10::cuda::getCurrentCUDAStream(where.device().index()).stream()));
}
#endif

// Runs an op whose share is a channel range: on threads of the CPU, or in one
// launch on the current stream of its device.
template <typename Op, typename Run>
void RunOp(const at::Tensor& where, Op op, int64_t begin, int64_t end,
           int64_t grain, const Run& set_range) {
  if (where.is_cpu()) {
    std::mutex mutex;
    absl::Status first;
    at::parallel_for(begin, end, grain, [&](int64_t from, int64_t to) {
      Op share = op;
      set_range(share, from, to);
      absl::Status status = kernels::cpu::Run(share);
      if (!status.ok()) {
        std::lock_guard<std::mutex> lock(mutex);
        first = status;
      }
    });
    OrThrow(first);
    return;
  }
#ifdef LIMPID_WITH_CUDA
  set_range(op, begin, end);
  RunOnGpu(where, op);
#else
  throw std::logic_error("this build has no CUDA kernels");
#endif
}

// Calls `work` with a value of the tensor's element type.
template <typename Work>
void Dispatch(const at::Tensor& tensor, const Work& work) {
  if (tensor.scalar_type() == at::kFloat) {
    work(float{});
  } else {
    TORCH_CHECK(tensor.scalar_type() == at::kDouble,
                "kernels take float32 and float64");
    work(double{});
  }
}

// Channels that one thread takes at least: a vector's worth times a few.
inline constexpr int64_t kChannelGrain = 32;

}  // namespace limpid
