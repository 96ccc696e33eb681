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
// The B sequences of an operation are one after the other: b begins at position
// b L of everything. Those that differ in length begin where `begins` says, on
// the device; L is then the number of positions of all of them together (see
// SpanOf).
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

// The recurrence applied to u. Null factors are left out:
//   y = scale (recurrence + added) silu(gate_input)
// Cost: B D L N multiply-adds and exponentials.
template <typename T>
struct SelectiveScan {
  SelectiveSsm<T> ssm;        // of the first sequence
  int64_t channel_begin = 0;  // channels [begin, end) are computed
  int64_t channel_end = 0;
  const T* u = nullptr;  // [B L, D]
  int64_t u_stride = 0;
  T* y = nullptr;  // [B L, D]
  int64_t y_stride = 0;
  int64_t num_sequences = 1;  // B
  // Whether y and what follows have the recurrence's first position last, as
  // that of a block which reads from right to left.
  bool reversed = false;
  const T* added = nullptr;  // [B L, D] with y's stride, may be y itself
  const T* gate_input = nullptr;  // [B L, D]
  int64_t gate_input_stride = 0;
  T* gate = nullptr;  // [B L, D] contiguous, set to silu(gate_input)
  T scale = 1;
  const int64_t* begins = nullptr;  // [B + 1], or null: all have L positions
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
// sum_k weight[c,k] x[i-(K-1)+k, c] with x[<0] = 0 before each sequence; and
// what the activation makes of it. At least one output is wanted. One thread's
// share is a range of channels: the same call with the pointers moved on to its
// first one.
template <typename T>
struct CausalConv1d {
  int64_t num_positions = 0;
  int64_t num_channels = 0;
  int64_t width = 0;          // K, at most kMaxConvWidth
  const T* weight = nullptr;  // [D, K]
  const T* bias = nullptr;    // [D] or null
  const T* x = nullptr;       // [B L, D]
  int64_t x_stride = 0;
  T* out = nullptr;  // [B L, D], or null
  int64_t out_stride = 0;
  int64_t num_sequences = 1;  // B
  // Whether x has the first position of each sequence last.
  bool reversed = false;
  T* ratio = nullptr;      // as out: sigmoid(out), or null
  T* activated = nullptr;  // as out: silu(out), or null
  const int64_t* begins = nullptr;  // [B + 1], or null: all have L positions
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

// Numbers of every sequence, position and head: element (b, i, h, n) is
// data[b sequence_stride + i position_stride + h head_stride + n element_stride].
// A stride may be 0: the number is shared. Null data: there are none.
template <typename T>
struct HeadOperand {
  const T* data = nullptr;
  int64_t sequence_stride = 0;
  int64_t position_stride = 0;
  int64_t head_stride = 0;
  int64_t element_stride = 1;
};

// How a recurrence with a matrix state [N, P] per head is frozen at one input:
//   S_i = diag(decay_i) S_{i-1} + left_i (right_i^T S_{i-1}) + key_i value_i^T
//   o_i = S_i^T query_i                                 without `diagonal`
//   o_i = S_{i-1}^T query_i + diagonal_i value_i        with it,   S_{-1} = 0.
// In terms of values it is a matrix per head, o_i = sum_j A[i,j] value_j with
//   A[i,j] = query_i^T F_{last} ... F_{j+1} key_j,
//   F_m = diag(decay_m) + left_m right_m^T,
// where last is i and A[i,i] = query_i . key_i without `diagonal`, and last is
// i - 1 and A[i,i] = diagonal_i with it. Every family but S6 has this form:
// RG-LRU with N = P = 1, SSD and RWKV-5/6 with left = right = none, RWKV-7 and
// delta rules with them. Decays are from 0 to 1.
template <typename T>
struct StateRecurrence {
  int64_t num_sequences = 1;  // B
  int64_t num_positions = 0;  // L
  int64_t num_heads = 0;      // H
  int64_t key_size = 0;       // N, at most kMaxStateSize
  HeadOperand<T> query;       // N numbers, as all that follow but diagonal
  HeadOperand<T> key;
  HeadOperand<T> decay;
  HeadOperand<T> left;      // with right, or neither
  HeadOperand<T> right;
  HeadOperand<T> diagonal;  // one number, or null
};

// out = the recurrence applied to values. Heads [begin, end) of those of all
// sequences, counted as b H + h, are computed. Cost: 2 B L H N P
// multiply-adds, twice that with left and right.
template <typename T>
struct StateScan {
  StateRecurrence<T> recurrence;
  int64_t value_size = 0;  // P, at most kMaxStateSize
  HeadOperand<T> value;    // P numbers
  int64_t head_begin = 0;
  int64_t head_end = 0;
  T* out = nullptr;  // [B, L, H, P] contiguous
  // [B + 1], or null: all have L positions. Operands and `out` are then those
  // of one sequence that has all positions: sequence strides are 0.
  const int64_t* begins = nullptr;
};

// Adjoint of StateScan: gradients by all operands. Outputs are contiguous
// [B, L, H, N] ([B, L, H, P] for dvalue, [B, L, H] for ddiagonal) and set for
// the heads of the range; null: not wanted.
template <typename T>
struct StateScanBackward {
  StateRecurrence<T> recurrence;
  int64_t value_size = 0;
  HeadOperand<T> value;
  int64_t head_begin = 0;
  int64_t head_end = 0;
  const T* dout = nullptr;  // [B, L, H, P] contiguous
  T* dquery = nullptr;
  T* dkey = nullptr;
  T* ddecay = nullptr;
  T* dleft = nullptr;
  T* dright = nullptr;
  T* ddiagonal = nullptr;
  T* dvalue = nullptr;
  // Scratch of StateScanBackwardScratch(...) elements on the same device, not
  // shared between calls that run at the same time.
  T* scratch = nullptr;
};

// The matrices A of heads [head_begin, head_end) of one sequence, rows
// [row_begin, row_end).
template <typename T>
struct StateAttention {
  StateRecurrence<T> recurrence;
  int64_t sequence = 0;
  int64_t head_begin = 0;
  int64_t head_end = 0;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  // [head_end - head_begin, row_end - row_begin, L] contiguous, set; zeros
  // above the diagonal.
  T* out = nullptr;
};

// From the matrices of heads to those of channels:
//   alpha_c = diag(row_scale) (A_h(c) + skip I) diag(source_scale) M_c,
// h(c) = c div channels_per_head; M_c as in SsmAttention. Matrices may be full
// or triangular. A null factor is the identity, a null skip is zero.
template <typename T>
struct ExpandHeads {
  int64_t num_positions = 0;      // L
  int64_t channels_per_head = 1;
  const T* heads = nullptr;  // [heads, rows, L] contiguous, from head_begin on
  int64_t head_begin = 0;
  const T* skip = nullptr;          // [D]
  const T* source_scale = nullptr;  // [L, D]
  int64_t source_stride = 0;
  const T* conv_weight = nullptr;  // [D, K]
  int64_t conv_width = 0;
  const T* row_scale = nullptr;  // [L, D]
  int64_t row_stride = 0;
  int64_t channel_begin = 0;
  int64_t channel_end = 0;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  T* out = nullptr;  // [channels, rows, L] contiguous, set
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
  const T* slab = nullptr;    // [num_channels, num_entries]
  const T* weight = nullptr;  // [num_channels], kWeightedSumAbs only
  T* accumulator = nullptr;   // [num_entries]
  int64_t slab_stride = 0;    // elements between channels
};

// What SsmAttention's matrices of all rows give when they are folded and when
// they are multiplied, without their entries ever being in memory:
//   accumulator[i, j] = fold over channels of alpha_c[i, j], continued
//   product[i, c] = sum_j alpha_c[i, j] value[j, c]
//                   + what the convolution's bias gives (CUDA only).
// CUDA: float32, all rows, and B sequences at once, to about 22 bits of the
// largest entries around (kernels/cuda/ssm_fold.h). CPU: one sequence; one
// thread's share is a range of rows, to whose first one accumulator and product
// point.
template <typename T>
struct SsmAttentionFold {
  // Elements between what sequences have of an operand. Weights are shared.
  struct SequenceStrides {
    int64_t delta = 0;
    int64_t b = 0;
    int64_t c = 0;
    int64_t source_scale = 0;
    int64_t row_scale = 0;
    int64_t value = 0;
  };

  SsmAttention<T> attention;  // all channels; `out` is not used
  // Strides of row_scale and value may be negative, for what stands in the
  // order of a sequence that is read from its end.
  int64_t num_sequences = 1;  // B; `attention` is that of the first one
  SequenceStrides sequence_strides;
  ChannelFold fold = ChannelFold::kSum;
  const T* weight = nullptr;  // [D], kWeightedSumAbs only
  T* accumulator = nullptr;   // [B, L, L] contiguous
  const T* value = nullptr;   // [B, L, D], with product, or neither
  int64_t value_stride = 0;
  const T* conv_bias = nullptr;  // [D], CUDA only
  T* product = nullptr;  // [B, L, D] contiguous, set for the channels
  // CUDA: by what every GPU can do, although this one could do more; for tests.
  bool portable = false;
  // CUDA: FoldScratchBytes(...) on the device, aligned to 16 bytes.
  void* scratch = nullptr;
};

// The fold of a block of two directions, from that of each by itself. Off the
// diagonal only one of them has entries; on it they add up:
//   out[i, j] = ahead.accumulator[i, j],  j < i
//             = back.accumulator[L-1-i, L-1-j],  j > i
//             = fold over channels of ahead's alpha_c[i, i] and back's
//               alpha_c[L-1-i, L-1-i] added up,  j = i.
template <typename T>
struct JoinDirections {
  // As they were run, with the same sizes and the same fold: `back` in the time
  // of the direction that reads backwards. Values and products are not used.
  SsmAttentionFold<T> ahead, back;
  T* out = nullptr;  // [B, L, L] contiguous, set
  // Rows [begin, end) of those of all sequences, counted as b L + i.
  int64_t row_begin = 0;
  int64_t row_end = 0;
};

// SsmAttentionFold on CUDA for one sequence of recurrences whose heads have one
// state and one channel each (RG-LRU, WKV of RWKV-4): matrices as ExpandHeads
// makes them, without skip.
template <typename T>
struct ScalarAttentionFold {
  StateRecurrence<T> recurrence;
  int64_t sequence = 0;
  const T* source_scale = nullptr;  // [L, D]
  int64_t source_stride = 0;
  const T* conv_weight = nullptr;  // [D, K]
  int64_t conv_width = 0;
  const T* row_scale = nullptr;  // [L, D]
  int64_t row_stride = 0;
  ChannelFold fold = ChannelFold::kSum;
  const T* weight = nullptr;
  T* accumulator = nullptr;
  const T* value = nullptr;
  int64_t value_stride = 0;
  T* product = nullptr;
  void* scratch = nullptr;
};

// The matrices of all channels that ExpandHeads makes of those of heads, folded
// and multiplied on CUDA without their entries ever being in memory, float32:
//   accumulator[i, j] = fold over channels of alpha_c[i, j], continued
//   product[i, c] = sum_j alpha_c[i, j] value[j, c].
template <typename T>
struct HeadsFold {
  // What a block of threads folds. Each leaves a product of its columns.
  static constexpr int kBlockRows = 4, kBlockColumns = 128;

  // All channels, from head 0 on; `out` is not used. The matrices of heads are
  // lower triangular, with zeros above the diagonal.
  ExpandHeads<T> expand;
  ChannelFold fold = ChannelFold::kSum;
  const T* weight = nullptr;  // [D], kWeightedSumAbs only
  T* accumulator = nullptr;   // [rows, L] contiguous
  const T* value = nullptr;   // [L, D], with product, or neither
  int64_t value_stride = 0;
  T* product = nullptr;  // [rows, D] contiguous, set
  // FoldScratchBytes(...) on the device, aligned to 16 bytes.
  void* scratch = nullptr;
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
absl::Status Validate(const StateScan<T>& op);
template <typename T>
absl::Status Validate(const StateScanBackward<T>& op);
template <typename T>
absl::Status Validate(const StateAttention<T>& op);
template <typename T>
absl::Status Validate(const ExpandHeads<T>& op);
template <typename T>
absl::Status Validate(const FoldChannels<T>& op);
template <typename T>
absl::Status Validate(const SsmAttentionFold<T>& op);
template <typename T>
absl::Status Validate(const JoinDirections<T>& op);
template <typename T>
absl::Status Validate(const ScalarAttentionFold<T>& op);
template <typename T>
absl::Status Validate(const HeadsFold<T>& op);

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
absl::Status Run(const StateScan<T>& op);
template <typename T>
absl::Status Run(const StateScanBackward<T>& op);
// Elements for `num_heads` heads of one call.
template <typename T>
int64_t StateScanBackwardScratch(const StateRecurrence<T>& recurrence,
                                 int64_t value_size, int64_t num_heads);
template <typename T>
absl::Status Run(const StateAttention<T>& op);
template <typename T>
absl::Status Run(const ExpandHeads<T>& op);
template <typename T>
absl::Status Run(const FoldChannels<T>& op);
template <typename T>
absl::Status Run(const SsmAttentionFold<T>& op);
template <typename T>
absl::Status Run(const JoinDirections<T>& op);

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
absl::Status Run(const StateScan<T>& op, void* stream);
template <typename T>
absl::Status Run(const StateScanBackward<T>& op, void* stream);
// Elements for `num_heads` heads of one call.
template <typename T>
int64_t StateScanBackwardScratch(const StateRecurrence<T>& recurrence,
                                 int64_t value_size, int64_t num_heads);
template <typename T>
absl::Status Run(const StateAttention<T>& op, void* stream);
template <typename T>
absl::Status Run(const ExpandHeads<T>& op, void* stream);
template <typename T>
absl::Status Run(const FoldChannels<T>& op, void* stream);
// Whether Run takes the op on the current device: at most 16 states and 4 taps,
// 113 KiB of shared memory for a block of threads.
bool CanFold(const SsmAttentionFold<float>& op);
int64_t FoldScratchBytes(const SsmAttentionFold<float>& op);
absl::Status Run(const SsmAttentionFold<float>& op, void* stream);
template <typename T>
absl::Status Run(const JoinDirections<T>& op, void* stream);
// One state, neither left nor right, at most 4 taps.
bool CanFold(const ScalarAttentionFold<float>& op);
int64_t FoldScratchBytes(const ScalarAttentionFold<float>& op);
absl::Status Run(const ScalarAttentionFold<float>& op, void* stream);
// At most 4 taps.
bool CanFold(const HeadsFold<float>& op);
int64_t FoldScratchBytes(const HeadsFold<float>& op);
absl::Status Run(const HeadsFold<float>& op, void* stream);

}  // namespace cuda

}  // namespace limpid::kernels
