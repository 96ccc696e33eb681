// SPDX-License-Identifier: Apache-2.0
//
// The recurrence with a group of threads per column of a state: its numbers are
// in their registers from the first position to the last. Neighbouring groups
// have neighbouring columns, and read the same operands of size N, or, if heads
// have one column, neighbouring heads.
#include <cstdint>

#include "server/kernels/cuda/column_scan.h"
#include "server/kernels/cuda/lanes.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/state_scan.h"
#include "server/kernels/ops.h"
#include "server/kernels/sequences.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 64;

// A lane's numbers of all operands of one position. They do not depend on the
// state, and are fetched one position ahead of it.
template <int kOwn, bool kRankOne, typename T>
struct Operands {
  T query[kOwn];
  T key[kOwn];
  T decay[kOwn];
  T left[kRankOne ? kOwn : 1];
  T right[kRankOne ? kOwn : 1];
  T diagonal;
  T value;
};

template <int kLanes, int kOwn, bool kRankOne, typename T>
__global__ void __launch_bounds__(kThreads) Scan(ColumnScan<T> op) {
  const int lane = threadIdx.x % kLanes;
  const int64_t group = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kLanes;
  const int64_t num_columns = (op.head_end - op.head_begin) * op.value_size;
  // Groups without a column go along with the last one, for the sums.
  const bool active = group < num_columns;
  const int64_t column = active ? group : num_columns - 1;
  const int64_t slot = column / op.value_size;
  const int64_t p = column % op.value_size;
  const int64_t sequence = (op.head_begin + slot) / op.num_heads;
  const int64_t head = (op.head_begin + slot) % op.num_heads;
  const Span span = SpanInOperands(sequence, op.num_positions, op.begins);
  const int count = OwnCount<kLanes>(op.key_size, lane);
  const bool writer = active && lane == 0;

  const OwnNumbers<T> query(op.query, sequence, head, lane, kLanes);
  const OwnNumbers<T> key(op.key, sequence, head, lane, kLanes);
  const OwnNumbers<T> decay(op.decay, sequence, head, lane, kLanes);
  OwnNumbers<T> left;
  OwnNumbers<T> right;
  if constexpr (kRankOne) {
    left = OwnNumbers<T>(op.left, sequence, head, lane, kLanes);
    right = OwnNumbers<T>(op.right, sequence, head, lane, kLanes);
  }
  OwnNumbers<T> diagonal;
  const bool has_diagonal = op.diagonal.data != nullptr;
  if (has_diagonal) {
    diagonal = OwnNumbers<T>(op.diagonal, sequence, head, 0, 1);
  }
  const T* value = op.value.data + sequence * op.value.sequence_stride +
                   head * op.value.head_stride + p * op.value.element_stride;
  const int64_t before = PositionsBefore(sequence, op.num_positions, op.begins);
  T* out = op.out == nullptr
               ? nullptr
               : op.out + (before * op.num_heads + head) * op.value_size + p;
  T* projected =
      op.projected == nullptr
          ? nullptr
          : op.projected + slot * op.num_positions * op.value_size + p;

  const auto fetch = [&](int64_t i) {
    Operands<kOwn, kRankOne, T> x;
    query.Load(i, count, x.query);
    key.Load(i, count, x.key);
    decay.Load(i, count, x.decay);
    if constexpr (kRankOne) {
      left.Load(i, count, x.left);
      right.Load(i, count, x.right);
    }
    x.diagonal = has_diagonal ? diagonal.First(i) : T{0};
    x.value = __ldg(value + i * op.value.position_stride);
    return x;
  };
  const auto position = [&](int64_t step) {
    return op.backwards ? span.end - 1 - step : span.begin + step;
  };

  T state[kOwn];
#pragma unroll
  for (int k = 0; k < kOwn; ++k) state[k] = 0;
  Operands<kOwn, kRankOne, T> next = fetch(position(0));
  // Groups of a warp may have different sequences, and go along with the
  // longest one, for the sums.
  const int64_t num_steps = WarpMax(span.size());
  for (int64_t step = 0; step < num_steps; ++step) {
    const bool writes = writer && step < span.size();
    const Operands<kOwn, kRankOne, T> x = next;
    if (step + 1 < span.size()) next = fetch(position(step + 1));
    const int64_t i = position(step);

    if (op.adds_first) {
#pragma unroll
      for (int k = 0; k < kOwn; ++k) state[k] += x.key[k] * x.value;
    }
    T sum = 0;
    if (!op.outputs_last) {
#pragma unroll
      for (int k = 0; k < kOwn; ++k) sum += x.query[k] * state[k];
    }
    if constexpr (kRankOne) {
      T product = 0;
#pragma unroll
      for (int k = 0; k < kOwn; ++k) product += x.right[k] * state[k];
      product = GroupSum<kLanes>(product);
#pragma unroll
      for (int k = 0; k < kOwn; ++k) {
        state[k] = x.decay[k] * state[k] + x.left[k] * product;
      }
      if (writes && projected != nullptr) {
        projected[i * op.value_size] = product;
      }
    } else {
#pragma unroll
      for (int k = 0; k < kOwn; ++k) state[k] *= x.decay[k];
    }
    if (!op.adds_first) {
#pragma unroll
      for (int k = 0; k < kOwn; ++k) state[k] += x.key[k] * x.value;
    }
    if (op.outputs_last) {
#pragma unroll
      for (int k = 0; k < kOwn; ++k) sum += x.query[k] * state[k];
    }
    sum = GroupSum<kLanes>(sum) + x.diagonal * x.value;
    if (writes && out != nullptr) {
      out[i * op.num_heads * op.value_size] = sum;
    }
  }
}

}  // namespace

template <typename T>
absl::Status Launch(const ColumnScan<T>& op, cudaStream_t stream) {
  const int64_t num_columns = (op.head_end - op.head_begin) * op.value_size;
  if (num_columns == 0) return absl::OkStatus();
  return WithLanes(op.key_size, [&]<int kLanes, int kOwn>() {
    const int64_t num_blocks = CeilDiv(num_columns * kLanes, kThreads);
    LIMPID_RETURN_IF_ERROR(CheckGrid("StateScan", num_blocks));
    if (op.left.data != nullptr) {
      Scan<kLanes, kOwn, true, T>
          <<<static_cast<unsigned>(num_blocks), kThreads, 0, stream>>>(op);
    } else {
      Scan<kLanes, kOwn, false, T>
          <<<static_cast<unsigned>(num_blocks), kThreads, 0, stream>>>(op);
    }
    return CheckLaunch("StateScan");
  });
}

template <typename T>
absl::Status Run(const StateScan<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const StateRecurrence<T>& r = op.recurrence;
  if (r.key_size == 1 && op.value_size == 1 && r.left.data == nullptr) {
    return RunScalars(op, static_cast<cudaStream_t>(stream));
  }
  ColumnScan<T> scan;
  scan.num_positions = r.num_positions;
  scan.begins = op.begins;
  scan.num_heads = r.num_heads;
  scan.key_size = r.key_size;
  scan.value_size = op.value_size;
  scan.head_begin = op.head_begin;
  scan.head_end = op.head_end;
  scan.query = r.query;
  scan.key = r.key;
  scan.decay = r.decay;
  scan.left = r.left;
  scan.right = r.right;
  scan.diagonal = r.diagonal;
  scan.value = op.value;
  scan.outputs_last = r.diagonal.data == nullptr;
  scan.out = op.out;
  return Launch(scan, static_cast<cudaStream_t>(stream));
}

template absl::Status Launch(const ColumnScan<float>&, cudaStream_t);
template absl::Status Launch(const ColumnScan<double>&, cudaStream_t);
template absl::Status Run(const StateScan<float>&, void*);
template absl::Status Run(const StateScan<double>&, void*);

}  // namespace limpid::kernels::cuda
