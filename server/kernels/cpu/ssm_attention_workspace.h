// SPDX-License-Identifier: Apache-2.0
//
// Memory of the chunked algorithm for SsmAttention; its file says what the
// parts mean. About 3 (N + 16) (row_end + 100) numbers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/aligned_buffer.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {

// Rows of a chunk. Twice as many would halve the work of rescaling the keys but
// double that of the triangle inside the chunk, which costs about three times
// as much per entry.
inline constexpr int kChunk = 32;
// Room for the convolution to the left of column 0 or of a chunk.
inline constexpr int kPad = kMaxConvWidth;
inline constexpr int kWindow = kPad + kChunk;
// Channels whose inputs are transposed together: neighbours share cache lines.
inline constexpr int64_t kGroup = 16;

constexpr int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Everything of a call that is not in the operation, which must outlive it.
template <typename T>
struct Workspace {
  explicit Workspace(const SsmAttention<T>& op)
      : op(op),
        num_states(op.ssm.state_size),
        group(std::min(kGroup, op.channel_end - op.channel_begin)),
        // Not a power of two, or all states of a column would share a set of
        // the cache.
        stride(RoundUp(op.row_end + kWindow + kPad, 64) + 16),
        keys(num_states * stride),
        b(num_states * stride),
        c(num_states * stride),
        delta(group * stride),
        source(group * stride),
        row_scale(group * stride),
        input(stride),
        suffix(stride),
        raw_key(stride),
        query(num_states * kChunk),
        decay(num_states * kChunk),
        local_key(num_states * kChunk) {}

  const SsmAttention<T>& op;
  int64_t num_states;
  int64_t group;  // channels transposed together
  int64_t stride;
  AlignedBuffer<T> keys;       // [N, stride], column j at kPad + j
  AlignedBuffer<T> b;          // [N, stride], column = position
  AlignedBuffer<T> c;          // [N, stride], column = position
  AlignedBuffer<T> delta;      // [group, stride]
  AlignedBuffer<T> source;     // [group, stride]
  AlignedBuffer<T> row_scale;  // [group, stride]
  // Of the current channel.
  AlignedBuffer<T> input;        // [stride]: source_j delta_j
  AlignedBuffer<T> suffix;       // [stride]: sum of delta after j, to row_begin
  AlignedBuffer<T> raw_key;      // [stride]: keys of one state, no convolution
  AlignedBuffer<T> query;        // [N, kChunk]: Q
  AlignedBuffer<T> decay;        // [N, kChunk]: exp(a delta_i)
  AlignedBuffer<T> local_key;    // [N, kChunk]: keys of the chunk, at row i
  T total_decay[kMaxStateSize];  // exp(a * sum of delta in the chunk)
  T tap[kPad];
  T skip = 0;
};

}  // namespace limpid::kernels::cpu
