// SPDX-License-Identifier: Apache-2.0
//
// The operations that have kernels of ours, one parameter struct each, shared
// by the CPU, the CUDA and the reference implementation. No Torch here: the
// folder compiles and is tested on its own.
//
// Shape letters: L positions, D channels, N state size, K convolution width.
// All pointers of a call point to memory of one device, float32 or float64
// (T). Position strides are in elements; the innermost dimension is contiguous.
// Outputs must not overlap inputs. No function allocates outputs.
//
// CPU functions run on the calling thread; callers split the channel range to
// use several. They set flush-to-zero for their duration. CUDA functions enqueue
// on the given stream and do not synchronise.
#pragma once

#include <cstdint>
#include <type_traits>

#include "server/base/status.h"

namespace limpid::kernels {

// How an S6 recurrence is frozen at one input (spec: Mamba, arXiv:2312.00752,
// algorithm 2): per channel c and state n
//   s_i[n] = exp(delta_i[c] a[c,n]) s_{i-1}[n] + delta_i[c] b_i[n] u_i[c]
//   y_i[c] = sum_n c_i[n] s_i[n] + skip[c] u_i[c],      s_{-1} = 0.
// All entries of `a` are negative or zero, all of `delta` positive or zero.
template <typename T>
struct SelectiveSsm {
  int64_t num_positions = 0;  // L
  int64_t num_channels = 0;   // D
  int64_t state_size = 0;     // N, at most kMaxStateSize
  const T* delta = nullptr;   // [L, D], after bias and softplus
  int64_t delta_stride = 0;   // elements between positions
  const T* a = nullptr;       // [D, N]
  const T* b = nullptr;       // [L, N]
  int64_t b_stride = 0;
  const T* c = nullptr;       // [L, N]
  int64_t c_stride = 0;
  const T* skip = nullptr;    // [D], or null: no skip
};

inline constexpr int64_t kMaxStateSize = 256;
inline constexpr int64_t kMaxConvWidth = 16;

// y = the recurrence applied to u. Cost: D L N multiply-adds and exponentials.
template <typename T>
struct SelectiveScan {
  SelectiveSsm<T> ssm;
  int64_t channel_begin = 0;  // channels [begin, end) are computed
  int64_t channel_end = 0;
  const T* u = nullptr;  // [L, D]
  int64_t u_stride = 0;
  T* y = nullptr;  // [L, D]
  int64_t y_stride = 0;
};

// Adjoint of SelectiveScan: from dy to the gradients by u, delta, b and c. `a`
// and `skip` are weights and get none.
template <typename T>
struct SelectiveScanBackward {
  SelectiveSsm<T> ssm;
  int64_t channel_begin = 0;
  int64_t channel_end = 0;
  const T* u = nullptr;  // [L, D]
  int64_t u_stride = 0;
  const T* dy = nullptr;  // [L, D]
  int64_t dy_stride = 0;
  T* du = nullptr;      // [L, D] contiguous, set
  T* ddelta = nullptr;  // [L, D] contiguous, set
  // Sums over channels. CPU and reference: [L, N] contiguous, added to, so that
  // one thread's channel range needs a buffer of its own. CUDA: [L, N], added
  // to in a fixed order (the result does not depend on scheduling).
  T* db = nullptr;
  T* dc = nullptr;
  // Scratch of SelectiveScanBackwardScratch(...) elements on the same device.
  T* scratch = nullptr;
};

// out = bias + causal depthwise convolution: out[i,c] = bias[c] +
// sum_k weight[c,k] x[i-(K-1)+k, c] with x[<0] = 0. One thread's share is a
// range of channels: the same call with the pointers moved on to its first one.
template <typename T>
struct CausalConv1d {
  int64_t num_positions = 0;
  int64_t num_channels = 0;
  int64_t width = 0;          // K, at most kMaxConvWidth
  const T* weight = nullptr;  // [D, K]
  const T* bias = nullptr;    // [D] or null
  const T* x = nullptr;       // [L, D]
  int64_t x_stride = 0;
  T* out = nullptr;  // [L, D]
  int64_t out_stride = 0;
};

// Entries of the implicit attention of a block whose recurrence is `ssm`
// (arXiv:2405.16504):
//   alpha_c = diag(row_scale) (S + skip I) diag(source_scale) M_c
// for channels [channel_begin, channel_end) and rows [row_begin, row_end);
// S[i,j] = sum_n c_i[n] exp(a[c,n] sum_{m=j+1..i} delta_m[c]) delta_j[c] b_j[n]
// and M_c[i,j] = conv_weight[c, K-1-(i-j)]. A null factor is the identity.
template <typename T>
struct SsmAttention {
  SelectiveSsm<T> ssm;
  const T* source_scale = nullptr;  // [L, D] or null: activation ratio
  int64_t source_stride = 0;
  const T* conv_weight = nullptr;  // [D, K] or null
  int64_t conv_width = 0;
  const T* row_scale = nullptr;  // [L, D] or null: gate
  int64_t row_stride = 0;
  int64_t channel_begin = 0;
  int64_t channel_end = 0;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  // [channel_end - channel_begin, row_end - row_begin, L] contiguous, set;
  // zeros above the diagonal.
  T* out = nullptr;
};

// How channels are folded into one matrix while they are produced.
enum class ChannelFold { kSum, kSumAbs, kSumPositive, kSumSquares, kMax, kMin,
                         kWeightedSumAbs };

// accumulator[r, j] = fold over channels of slab[c, r, j], continued from what
// it holds (0, or -inf/+inf for kMax/kMin at the start).
template <typename T>
struct FoldChannels {
  ChannelFold fold = ChannelFold::kSum;
  int64_t num_channels = 0;
  int64_t num_entries = 0;    // rows * L
  const T* slab = nullptr;    // [num_channels, num_entries] contiguous
  const T* weight = nullptr;  // [num_channels], kWeightedSumAbs only
  T* accumulator = nullptr;   // [num_entries]
};

// Checks sizes and pointers; INTERNAL with what is wrong, since only our own
// code makes these structs.
template <typename T>
absl::Status Validate(const SelectiveScan<T>& op);
template <typename T>
absl::Status Validate(const SelectiveScanBackward<T>& op);
template <typename T>
absl::Status Validate(const CausalConv1d<T>& op);
template <typename T>
absl::Status Validate(const SsmAttention<T>& op);
template <typename T>
absl::Status Validate(const FoldChannels<T>& op);

namespace cpu {

template <typename T>
absl::Status Run(const SelectiveScan<T>& op);
template <typename T>
absl::Status Run(const SelectiveScanBackward<T>& op);
template <typename T>
int64_t SelectiveScanBackwardScratch(const SelectiveSsm<T>& ssm,
                                     int64_t num_channels);
template <typename T>
absl::Status Run(const CausalConv1d<T>& op);
// Chooses between the backward recursion (a few rows: no state is kept but N
// numbers per row) and the chunked matrix product (spec: method B; off-diagonal
// blocks as products of factors whose exponents are <= 0). All rows before
// row_begin are skipped, not computed.
template <typename T>
absl::Status Run(const SsmAttention<T>& op);
// The two algorithms by name, for the test that holds them equal.
template <typename T>
absl::Status RunRecursive(const SsmAttention<T>& op);
template <typename T>
absl::Status RunChunked(const SsmAttention<T>& op);
template <typename T>
absl::Status Run(const FoldChannels<T>& op);

}  // namespace cpu

// Only in builds with CUDA (LIMPID_WITH_CUDA). `stream` is a cudaStream_t.
namespace cuda {

template <typename T>
absl::Status Run(const SelectiveScan<T>& op, void* stream);
template <typename T>
absl::Status Run(const SelectiveScanBackward<T>& op, void* stream);
template <typename T>
int64_t SelectiveScanBackwardScratch(const SelectiveSsm<T>& ssm,
                                     int64_t num_channels);
template <typename T>
absl::Status Run(const CausalConv1d<T>& op, void* stream);
template <typename T>
absl::Status Run(const SsmAttention<T>& op, void* stream);
template <typename T>
absl::Status Run(const FoldChannels<T>& op, void* stream);

}  // namespace cuda

}  // namespace limpid::kernels
