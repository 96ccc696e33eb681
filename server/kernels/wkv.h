// SPDX-License-Identifier: Apache-2.0
//
// The recurrence of RWKV-4 (arXiv:2305.13048) from keys to outputs, with the
// factors of the state recurrence that it is. Conventions as in ops.h.
#pragma once

#include <cstdint>

#include "server/base/status.h"

namespace limpid::kernels {

// Values are averaged with the weights
//   exp(key_j + (i - 1 - j) decay), j < i,   and   exp(key_i + bonus).
// Keys can be large, so everything is relative to the largest weight so far,
// which is kept in double precision: large_i = max(large_{i-1} + decay, key_i),
// top_i = max(large_{i-1}, key_i + bonus), large_{-1} = -inf. In the terms of
// StateRecurrence with N = P = 1:
//   key factor   exp(key_i - large_i)
//   decay factor exp(large_{i-1} + decay - large_i)
//   query        exp(large_{i-1} - top_i) / sum of the weights
//   diagonal     exp(key_i + bonus - top_i) / sum of the weights
//   out          (average of the values) sigmoid(gate_input)
template <typename T>
struct Wkv {
  int64_t num_sequences = 1;  // B
  int64_t num_positions = 0;  // L
  int64_t num_channels = 0;   // D
  int64_t channel_begin = 0;  // channels [begin, end) are computed
  int64_t channel_end = 0;
  // [B, L, D] contiguous, as all that follow but decay, bonus and begins.
  const T* key = nullptr;
  const T* value = nullptr;
  const T* gate_input = nullptr;  // or null: no gate
  const T* decay = nullptr;       // [D], at most zero
  const T* bonus = nullptr;       // [D]
  T* out = nullptr;
  // The factors, all or none.
  T* key_factor = nullptr;
  T* decay_factor = nullptr;
  T* query = nullptr;
  T* diagonal = nullptr;
  T* gate = nullptr;                // sigmoid(gate_input), or null
  const int64_t* begins = nullptr;  // [B + 1], or null: all have L positions
};

template <typename T>
absl::Status Validate(const Wkv<T>& op);

namespace cpu {

template <typename T>
absl::Status Run(const Wkv<T>& op);

}  // namespace cpu

namespace cuda {

template <typename T>
absl::Status Run(const Wkv<T>& op, void* stream);

}  // namespace cuda

}  // namespace limpid::kernels
