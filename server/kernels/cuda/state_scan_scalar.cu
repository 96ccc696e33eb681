// SPDX-License-Identifier: Apache-2.0
//
// StateScan of heads with one state and one channel, in segments of positions
// that run side by side: each first from a state of zero, then, once the states
// at the segments' borders are known, from there. One thread has a head and a
// segment; neighbours are heads.
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/state_scan.h"
#include "server/kernels/ops.h"
#include "server/kernels/sequences.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kHeads = 32;
constexpr int kSegments = 32;

// One head's numbers.
template <typename T>
struct Numbers {
  const T* data;
  int64_t stride;

  __device__ Numbers(const HeadOperand<T>& operand, int64_t sequence,
                     int64_t head)
      : data(operand.data + sequence * operand.sequence_stride +
             head * operand.head_stride),
        stride(operand.position_stride) {}
  __device__ T operator[](int64_t i) const { return __ldg(data + i * stride); }
};

template <bool kDiagonal, typename T>
__global__ void __launch_bounds__(kHeads* kSegments)
    ScanScalars(StateScan<T> op) {
  __shared__ T states[kSegments][kHeads];
  __shared__ T decays[kSegments][kHeads];
  const StateRecurrence<T>& recurrence = op.recurrence;
  const int lane = threadIdx.x % kHeads, segment = threadIdx.x / kHeads;
  const int64_t slot = op.head_begin + int64_t{blockIdx.x} * kHeads + lane;
  const bool own = slot < op.head_end;
  const int64_t place = own ? slot : op.head_end - 1;
  const int64_t sequence = place / recurrence.num_heads;
  const int64_t head = place % recurrence.num_heads;
  const Numbers<T> query(recurrence.query, sequence, head);
  const Numbers<T> key(recurrence.key, sequence, head);
  const Numbers<T> decay(recurrence.decay, sequence, head);
  const Numbers<T> value(op.value, sequence, head);
  const Numbers<T> diagonal(kDiagonal ? recurrence.diagonal : recurrence.query,
                            sequence, head);
  const Span span =
      SpanInOperands(sequence, recurrence.num_positions, op.begins);
  const int64_t begin = span.begin + span.size() * segment / kSegments;
  const int64_t end = span.begin + span.size() * (segment + 1) / kSegments;

  T state = 0, through = 1;
#pragma unroll 4
  for (int64_t i = begin; i < end; ++i) {
    state = decay[i] * state + key[i] * value[i];
    through *= decay[i];
  }
  states[segment][lane] = state;
  decays[segment][lane] = through;
  __syncthreads();
  if (segment == 0) {
    // What enters each segment, in place of what leaves it.
    T carried = 0;
    for (int s = 0; s < kSegments; ++s) {
      const T leaves = states[s][lane];
      states[s][lane] = carried;
      carried = decays[s][lane] * carried + leaves;
    }
  }
  __syncthreads();
  if (!own) return;
  state = states[segment][lane];
  const int64_t before =
      PositionsBefore(sequence, recurrence.num_positions, op.begins);
  T* const out = op.out + before * recurrence.num_heads + head;
#pragma unroll 4
  for (int64_t i = begin; i < end; ++i) {
    const T added = key[i] * value[i];
    T y;
    if constexpr (kDiagonal) {
      y = query[i] * state + diagonal[i] * value[i];
      state = decay[i] * state + added;
    } else {
      state = decay[i] * state + added;
      y = query[i] * state;
    }
    out[i * recurrence.num_heads] = y;
  }
}

}  // namespace

template <typename T>
absl::Status RunScalars(const StateScan<T>& op, cudaStream_t stream) {
  const int64_t num_blocks = CeilDiv(op.head_end - op.head_begin, kHeads);
  if (num_blocks == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("StateScan", num_blocks));
  const auto blocks = static_cast<unsigned>(num_blocks);
  if (op.recurrence.diagonal.data != nullptr) {
    ScanScalars<true, T><<<blocks, kHeads * kSegments, 0, stream>>>(op);
  } else {
    ScanScalars<false, T><<<blocks, kHeads * kSegments, 0, stream>>>(op);
  }
  return CheckLaunch("StateScan");
}

template absl::Status RunScalars(const StateScan<float>&, cudaStream_t);
template absl::Status RunScalars(const StateScan<double>&, cudaStream_t);

}  // namespace limpid::kernels::cuda
