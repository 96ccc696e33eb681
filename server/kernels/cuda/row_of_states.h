// SPDX-License-Identifier: Apache-2.0
//
// The N numbers of B or C at a position, which all channels share, and decays:
// what kernels that run along an S6 recurrence have in their inner loops.
#pragma once

#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

// Numbers past the last of the row are zeros.
template <int kStates, bool kWide, typename T>
class RowOfStates {
 public:
  __device__ RowOfStates(const T* from, int num_states)
      : from_(from), num_states_(num_states) {}
  __device__ T operator[](int n) const {
    return n < num_states_ ? __ldg(from_ + n) : T{0};
  }

 private:
  const T* from_;
  int num_states_;
};

// There are kStates numbers, aligned for loads of four.
template <int kStates>
class RowOfStates<kStates, true, float> {
 public:
  __device__ RowOfStates(const float* from, int) {
#pragma unroll
    for (int n = 0; n < kStates; n += 4) {
      const float4 four = __ldg(reinterpret_cast<const float4*>(from + n));
      numbers_[n] = four.x;
      numbers_[n + 1] = four.y;
      numbers_[n + 2] = four.z;
      numbers_[n + 3] = four.w;
    }
  }
  __device__ float operator[](int n) const { return numbers_[n]; }

 private:
  float numbers_[kStates];
};

// exp(delta a) as Decay(delta Rate(a)): in float32 one instruction that raises
// two to its argument, to 22 bits.
__device__ inline float Rate(float a) { return a * 0x1.715476p+0f; }
__device__ inline double Rate(double a) { return a; }
__device__ inline float Decay(float exponent) {
  float decay;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(decay) : "f"(exponent));
  return decay;
}
__device__ inline double Decay(double exponent) { return exp(exponent); }

// Whether rows of B and C are as RowOfStates<kWideStates, true> takes them.
inline constexpr int kWideStates = 16;
inline bool HasWideRows(const SelectiveSsm<float>& ssm) {
  const auto aligned = [](const float* data, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 4 == 0;
  };
  return ssm.state_size == kWideStates && aligned(ssm.b, ssm.b_stride) &&
         aligned(ssm.c, ssm.c_stride);
}

// Calls launch.template operator()<kStates, kWide>() with what fits the rows of
// B and C.
template <typename T, typename Launch>
absl::Status WithRows(const SelectiveSsm<T>& ssm, const Launch& launch) {
  if constexpr (sizeof(T) == 4) {
    if (HasWideRows(ssm)) {
      return launch.template operator()<kWideStates, true>();
    }
  }
  return WithStateSize(ssm.state_size, [&]<int kStates>() {
    return launch.template operator()<kStates, false>();
  });
}

}  // namespace limpid::kernels::cuda
