// SPDX-License-Identifier: Apache-2.0
//
// Operations for a few rows of a block's matrices, when neither their entries
// nor anything else of size L D is to be in memory. Conventions as in ops.h.
#pragma once

#include <cstdint>

#include "server/base/status.h"
#include "server/kernels/ops.h"

namespace limpid::kernels {

// More are not a few.
inline constexpr int64_t kMaxFoldedRows = 8;

// What a few rows of SsmAttention's matrices give when they are folded over
// channels, and when the block's map is recomputed with them:
//   accumulator[r, j] = fold over channels of alpha_c[r, j], continued
//   product[r, c] = sum_j alpha_c[r, j] value[j, c]
//       + row_scale_r conv_bias[c] sum_j (S + skip I)[r, j] source_scale_j
// Cost: that of the entries, L N per row and channel.
template <typename T>
struct SsmRowsFold {
  // At most kMaxFoldedRows rows; `out` is not used. One thread's share is a
  // range of channels, with an accumulator of its own.
  SsmAttention<T> attention;
  const T* conv_bias = nullptr;  // [D] or null
  ChannelFold fold = ChannelFold::kSum;
  const T* weight = nullptr;  // [D], kWeightedSumAbs only
  T* accumulator = nullptr;   // [rows, L]
  const T* value = nullptr;   // [L, D], with product, or neither
  int64_t value_stride = 0;
  T* product = nullptr;  // [rows, D] contiguous, set for the channels
  // CUDA: RowsFoldScratch(...) elements on the device.
  T* scratch = nullptr;
};

// How far a recomputed map is from the block's output, at its worst over
// channels:
//   error[r] = max_c |product + bias - output| / max(max_c |output|, 1e-30)
// NaN if anything in the row is not finite.
template <typename T>
struct RowErrors {
  int64_t num_rows = 0;
  int64_t num_channels = 0;    // D
  const T* product = nullptr;  // [rows, D]
  int64_t product_stride = 0;
  const T* bias = nullptr;  // [rows, D] or null
  int64_t bias_stride = 0;  // 0: the same for all rows
  const T* output = nullptr;  // [rows, D]
  int64_t output_stride = 0;
  T* error = nullptr;  // [rows]
};

template <typename T>
absl::Status Validate(const SsmRowsFold<T>& op);
template <typename T>
absl::Status Validate(const RowErrors<T>& op);

namespace cpu {

template <typename T>
absl::Status Run(const SsmRowsFold<T>& op);
template <typename T>
absl::Status Run(const RowErrors<T>& op);

}  // namespace cpu

namespace cuda {

// Whether Run takes the op: at most 16 states and 4 taps.
template <typename T>
bool CanFoldRows(const SsmRowsFold<T>& op);
template <typename T>
int64_t RowsFoldScratch(const SsmRowsFold<T>& op);
template <typename T>
absl::Status Run(const SsmRowsFold<T>& op, void* stream);
template <typename T>
absl::Status Run(const RowErrors<T>& op, void* stream);

}  // namespace cuda

}  // namespace limpid::kernels
