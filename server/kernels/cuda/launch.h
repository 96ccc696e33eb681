// SPDX-License-Identifier: Apache-2.0
//
// What all launches of CUDA kernels share.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid::kernels::cuda {

// Blocks of a one-dimensional grid, at most.
inline constexpr int64_t kMaxBlocks = 0x7fffffff;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// To be called right after a launch: whether it was accepted. Errors while the
// kernel runs show up at the next synchronisation, which is the caller's.
inline absl::Status CheckLaunch(absl::string_view kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInternal, "CUDA_LAUNCH",
                   absl::StrCat(kernel, ": ", cudaGetErrorString(error)));
}

inline absl::Status CheckGrid(absl::string_view kernel, int64_t num_blocks) {
  if (num_blocks <= kMaxBlocks) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInternal, "CUDA_LAUNCH",
      absl::StrCat(kernel, ": ", num_blocks, " blocks, at most ", kMaxBlocks));
}

// Launches a kernel whose blocks take `bytes` of dynamic shared memory, beyond
// the 48 KiB that need no permission. The permission belongs to the kernel on a
// device, not to the launch: if each asked for what it takes, one thread would
// take it from another that is about to launch. So all ask for as much as a
// block can have.
template <typename... Parameters>
absl::Status LaunchWithSharedMemory(absl::string_view name,
                                    void (*kernel)(Parameters...), dim3 grid,
                                    int threads, int bytes, cudaStream_t stream,
                                    const Parameters&... arguments) {
  int device = 0, most = 0;
  cudaFuncAttributes attributes;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = bytes;
  config.stream = stream;
  (void)(cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                device) == cudaSuccess &&
         cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess &&
         cudaFuncSetAttribute(
             kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
             most - static_cast<int>(attributes.sharedSizeBytes)) ==
             cudaSuccess &&
         cudaLaunchKernelEx(&config, kernel, arguments...) == cudaSuccess);
  // Of whichever failed.
  return CheckLaunch(name);
}

// How often a loop over an array of kStates states is written out: wholly while
// such arrays fit into registers; beyond that it would only make the compiler
// slow.
template <int kStates>
inline constexpr int kUnroll = kStates <= 64 ? kStates : 1;

// Calls launch.template operator()<kStates>() with the smallest of a few state
// sizes that is at least `state_size`.
template <typename Launch>
absl::Status WithStateSize(int64_t state_size, const Launch& launch) {
  if (state_size <= 4) return launch.template operator()<4>();
  if (state_size <= 16) return launch.template operator()<16>();
  if (state_size <= 32) return launch.template operator()<32>();
  if (state_size <= 64) return launch.template operator()<64>();
  return launch.template operator()<256>();
}

}  // namespace limpid::kernels::cuda
