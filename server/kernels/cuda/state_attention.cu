// SPDX-License-Identifier: Apache-2.0
//
// The matrices of heads by running backwards from each row. A group of threads
// has a few neighbouring rows, for each the N numbers of
// g = F_{j+1}^T ... F_last^T query in their registers, and reads what belongs
// to a position once for all of them. A block has rows of one head, or the same
// few rows of many heads. Entries of a tile of positions are collected in
// shared memory, so that rows are written in one piece.
#include <cstdint>

#include "server/kernels/cuda/lanes.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 128;
// Positions whose entries are collected.
constexpr int kTile = 32;

// Blocks that a multiprocessor should have room for: other warps work while one
// waits for memory. Left alone, the compiler keeps an address per number.
template <bool kRankOne, typename T>
constexpr int kMinBlocks = sizeof(T) == 8 ? 2
                           : kRankOne     ? 3
                                          : 4;

// How rows and heads are shared out.
template <int kLanes>
struct Shape {
  static constexpr int kGroups = kThreads / kLanes;
  // Of a group. A row of few numbers has little to gain from a neighbour, and
  // there are many heads then.
  static constexpr int kRows = kLanes == 1 ? 1 : 4;
  static constexpr int kBlockRows = kGroups * kRows;

  int row_groups;      // groups with rows of the same head, a power of two
  int64_t row_blocks;  // blocks that have all rows of a head

  template <typename T>
  explicit Shape(const StateAttention<T>& op) : row_groups(1) {
    const int64_t num_rows = op.row_end - op.row_begin;
    while (row_groups < kGroups && row_groups * kRows < num_rows) {
      row_groups *= 2;
    }
    row_blocks = CeilDiv(num_rows, row_groups * kRows);
  }
  __host__ __device__ int heads() const { return kGroups / row_groups; }
};

// A lane's numbers of one position.
template <int kOwn, bool kRankOne, typename T>
struct Operands {
  T key[kOwn];
  T decay[kOwn];
  T left[kRankOne ? kOwn : 1];
  T right[kRankOne ? kOwn : 1];
};

template <int kLanes, int kOwn, bool kRankOne, typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocks<kRankOne, T>)
    Attend(StateAttention<T> op, Shape<kLanes> shape) {
  using Shape = Shape<kLanes>;
  constexpr int kRows = Shape::kRows;
  // One more, so that the rows of a column are in different banks.
  __shared__ T entries[Shape::kBlockRows][kTile + 1];
  const StateRecurrence<T>& r = op.recurrence;
  const int64_t length = r.num_positions;
  const int64_t num_rows = op.row_end - op.row_begin;
  const int lane = threadIdx.x % kLanes;
  const int group = threadIdx.x / kLanes;
  const int count = OwnCount<kLanes>(r.key_size, lane);
  const int64_t first_head =
      op.head_begin + blockIdx.x / shape.row_blocks * shape.heads();
  const int64_t first_row =
      op.row_begin + blockIdx.x % shape.row_blocks * (shape.row_groups * kRows);
  // Of the block, the same for all of its heads.
  const int64_t last_row =
      min(first_row + shape.row_groups * kRows, op.row_end) - 1;

  // Groups without a head go along with the last one, for the sums.
  const int64_t head =
      min(first_head + group / shape.row_groups, op.head_end - 1);
  // Of the group's first row.
  const int64_t row = first_row + group % shape.row_groups * kRows;
  const OwnNumbers<T> query(r.query, op.sequence, head, lane, kLanes);
  const OwnNumbers<T> key(r.key, op.sequence, head, lane, kLanes);
  const OwnNumbers<T> decay(r.decay, op.sequence, head, lane, kLanes);
  OwnNumbers<T> left;
  OwnNumbers<T> right;
  if constexpr (kRankOne) {
    left = OwnNumbers<T>(r.left, op.sequence, head, lane, kLanes);
    right = OwnNumbers<T>(r.right, op.sequence, head, lane, kLanes);
  }
  OwnNumbers<T> diagonal;
  const bool has_diagonal = r.diagonal.data != nullptr;
  if (has_diagonal) {
    diagonal = OwnNumbers<T>(r.diagonal, op.sequence, head, 0, 1);
  }
  const auto fetch = [&](int64_t j) {
    Operands<kOwn, kRankOne, T> x;
    key.Load(j, count, x.key);
    decay.Load(j, count, x.decay);
    if constexpr (kRankOne) {
      left.Load(j, count, x.left);
      right.Load(j, count, x.right);
    }
    return x;
  };

  // Zeros until the position is the row's own.
  T g[kRows][kOwn];
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) g[m][k] = 0;
  }
  // Several positions at a time where that takes few registers: what is read
  // does not depend on g.
  constexpr int kPositions = kOwn == 1 ? 4 : 1;

  // One position ahead where there are registers for it.
  constexpr bool kAhead = !kRankOne && sizeof(T) == 4;
  Operands<kOwn, kRankOne, T> next;
  if (kAhead) next = fetch(last_row);
  for (int64_t begin = (length - 1) / kTile * kTile; begin >= 0;
       begin -= kTile) {
#pragma unroll kPositions
    for (int64_t j = min(begin + kTile - 1, last_row); j >= begin; --j) {
      const Operands<kOwn, kRankOne, T> x = kAhead ? next : fetch(j);
      if (kAhead) next = fetch(max(j - 1, int64_t{0}));
#pragma unroll
      for (int m = 0; m < kRows; ++m) {
        if (!has_diagonal && j == row + m) query.Load(j, count, g[m]);
        T sum = 0;
#pragma unroll
        for (int k = 0; k < kOwn; ++k) sum += x.key[k] * g[m][k];
        sum = GroupSum<kLanes>(sum);
        if constexpr (kRankOne) {
          T product = 0;
#pragma unroll
          for (int k = 0; k < kOwn; ++k) product += x.left[k] * g[m][k];
          product = GroupSum<kLanes>(product);
#pragma unroll
          for (int k = 0; k < kOwn; ++k) {
            g[m][k] = x.decay[k] * g[m][k] + x.right[k] * product;
          }
        } else {
#pragma unroll
          for (int k = 0; k < kOwn; ++k) g[m][k] *= x.decay[k];
        }
        if (has_diagonal && j == row + m) {
          sum = diagonal.First(j);
          query.Load(j, count, g[m]);
        }
        if (lane == 0) entries[group * kRows + m][j - begin] = sum;
      }
    }
    __syncthreads();
    // Neighbouring threads write neighbouring positions.
    for (int at = threadIdx.x; at < Shape::kBlockRows * kTile; at += kThreads) {
      const int block_row = at / kTile;
      const int x = at % kTile;
      const int of_group = block_row / kRows;
      const int64_t out_head = first_head + of_group / shape.row_groups;
      const int64_t out_row =
          first_row + of_group % shape.row_groups * kRows + block_row % kRows;
      if (out_head < op.head_end && out_row <= last_row && begin + x < length) {
        op.out[((out_head - op.head_begin) * num_rows + out_row -
                op.row_begin) *
                   length +
               begin + x] =
            begin + x <= last_row ? entries[block_row][x] : T{0};
      }
    }
    __syncthreads();
  }
}

}  // namespace

template <typename T>
absl::Status Run(const StateAttention<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  if (op.head_begin == op.head_end || op.row_begin == op.row_end) {
    return absl::OkStatus();
  }
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  return WithLanes(op.recurrence.key_size, [&]<int kLanes, int kOwn>() {
    const Shape<kLanes> shape(op);
    const int64_t num_blocks =
        CeilDiv(op.head_end - op.head_begin, shape.heads()) * shape.row_blocks;
    LIMPID_RETURN_IF_ERROR(CheckGrid("StateAttention", num_blocks));
    if (op.recurrence.left.data != nullptr) {
      Attend<kLanes, kOwn, true, T>
          <<<static_cast<unsigned>(num_blocks), kThreads, 0, cuda_stream>>>(
              op, shape);
    } else {
      Attend<kLanes, kOwn, false, T>
          <<<static_cast<unsigned>(num_blocks), kThreads, 0, cuda_stream>>>(
              op, shape);
    }
    return CheckLaunch("StateAttention");
  });
}

template absl::Status Run(const StateAttention<float>&, void*);
template absl::Status Run(const StateAttention<double>&, void*);

}  // namespace limpid::kernels::cuda
