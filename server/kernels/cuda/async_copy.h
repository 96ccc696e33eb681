// SPDX-License-Identifier: Apache-2.0
//
// Copies from global to shared memory that a thread does not wait for:
// cp.async.
#pragma once

#include <cstdint>

namespace limpid::kernels::cuda {

// Four bytes, or zero.
__device__ inline void CopyWordAsync(float* to, const float* from,
                                     bool exists) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int size = exists ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address),
               "l"(from), "r"(size)
               : "memory");
}

// Sixteen bytes.
__device__ inline void CopyQuadAsync(void* to, const void* from) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address),
               "l"(from)
               : "memory");
}

}  // namespace limpid::kernels::cuda
