// SPDX-License-Identifier: Apache-2.0
//
// Adjoint of the recurrence; server/kernels/cpu/state_scan_backward.cc has the
// formulas. With S the state before a position and G its adjoint after it, all
// sums over n are made column by column, as in the recurrence itself, and all
// sums over p row by row, so that a sum never leaves a group of threads:
//
// 1. forwards by columns, only with left and right: u = S^T right;
// 2. backwards by columns: dvalue, and w = G^T left;
// 3. by rows: with u and w at hand the rows of S, and those of G, do not see
//    each other. Forwards, keeping the row of S before each chunk of about
//    sqrt(L) positions, then backwards chunk by chunk: all other gradients.
#include <cstdint>

#include "server/kernels/cuda/column_scan.h"
#include "server/kernels/cuda/lanes.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 64;

// Sizes of the parts of the scratch memory, in their order.
struct Layout {
  int64_t chunk;  // positions
  int64_t num_chunks;
  int64_t projections;  // u, and w: [heads, L, P], or nothing
  int64_t num_threads;  // of step 3
  int64_t rows;         // numbers of all of them: [kOwn, num_threads]
  int64_t checkpoints() const { return num_chunks * rows; }
  int64_t states() const { return chunk * rows; }
  int64_t total() const { return 2 * projections + checkpoints() + states(); }
};

template <typename T>
Layout MakeLayout(const StateRecurrence<T>& r, int64_t value_size,
                  int64_t num_heads) {
  int64_t chunk = 1;
  while (chunk * chunk < r.num_positions) ++chunk;
  const int64_t projections =
      r.left.data == nullptr ? 0 : num_heads * r.num_positions * value_size;
  return WithLanes(value_size, [&]<int kLanes, int kOwn>() {
    const int64_t num_threads =
        CeilDiv(num_heads * r.key_size * kLanes, kThreads) * kThreads;
    return Layout{chunk, CeilDiv(r.num_positions, chunk), projections,
                  num_threads, kOwn * num_threads};
  });
}

// What row n of a position needs: five numbers of its own, and a lane's part of
// four vectors.
template <int kOwn, bool kRankOne, typename T>
struct Operands {
  T query, key, decay, left, right;
  T value[kOwn];
  T dout[kOwn];
  T u[kRankOne ? kOwn : 1];
  T w[kRankOne ? kOwn : 1];
};

template <int kLanes, int kOwn, bool kRankOne, typename T>
__global__ void __launch_bounds__(kThreads)
    Rows(StateScanBackward<T> op, Layout layout) {
  const StateRecurrence<T>& r = op.recurrence;
  const int64_t length = r.num_positions;
  const int lane = threadIdx.x % kLanes;
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t num_rows = (op.head_end - op.head_begin) * r.key_size;
  // Groups without a row go along with the last one, for the sums; what they
  // keep has a place of its own.
  const bool active = thread / kLanes < num_rows;
  const int64_t row = active ? thread / kLanes : num_rows - 1;
  const int64_t slot = row / r.key_size;
  const int64_t n = row % r.key_size;
  const int64_t sequence = (op.head_begin + slot) / r.num_heads;
  const int64_t head = (op.head_begin + slot) % r.num_heads;
  const int count = OwnCount<kLanes>(op.value_size, lane);
  const bool writes = active && lane == 0;
  const bool has_diagonal = r.diagonal.data != nullptr;

  // Numbers that belong to the row: "lane" n of all.
  const int own = static_cast<int>(n);
  const OwnNumbers<T> query(r.query, sequence, head, own, 1);
  const OwnNumbers<T> key(r.key, sequence, head, own, 1);
  const OwnNumbers<T> decay(r.decay, sequence, head, own, 1);
  const OwnNumbers<T> value(op.value, sequence, head, lane, kLanes);
  const int64_t dout_stride = r.num_heads * op.value_size;
  const OwnNumbers<T> dout(HeadOperand<T>{op.dout, length * dout_stride,
                                          dout_stride, op.value_size, 1},
                           sequence, head, lane, kLanes);
  OwnNumbers<T> left;
  OwnNumbers<T> right;
  OwnNumbers<T> u;
  OwnNumbers<T> w;
  if constexpr (kRankOne) {
    left = OwnNumbers<T>(r.left, sequence, head, own, 1);
    right = OwnNumbers<T>(r.right, sequence, head, own, 1);
    const int64_t all = length * op.value_size;
    u = OwnNumbers<T>(HeadOperand<T>{op.scratch, 0, op.value_size, all, 1}, 0,
                      slot, lane, kLanes);
    w = u;
    w.data += layout.projections;
  }
  T* checkpoints = op.scratch + 2 * layout.projections + thread;
  T* states = checkpoints + layout.num_chunks * layout.rows;
  const auto at = [&](int64_t i) {
    return (sequence * length + i) * r.num_heads + head;
  };

  // What moving the state forwards needs, and the rest.
  const auto fetch_forward = [&](int64_t i) {
    Operands<kOwn, kRankOne, T> x;
    x.key = key.First(i);
    x.decay = decay.First(i);
    value.Load(i, count, x.value);
    if constexpr (kRankOne) {
      x.left = left.First(i);
      u.Load(i, count, x.u);
    }
    return x;
  };
  const auto fetch = [&](int64_t i) {
    Operands<kOwn, kRankOne, T> x = fetch_forward(i);
    x.query = query.First(i);
    dout.Load(i, count, x.dout);
    if constexpr (kRankOne) {
      x.right = right.First(i);
      w.Load(i, count, x.w);
    }
    return x;
  };

  T state[kOwn];
  const auto save = [&](T* to) {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) to[k * layout.num_threads] = state[k];
  };
  // From position `begin` to `end`; before_position(i) is called before each.
  const auto forward = [&](int64_t begin, int64_t end,
                           const auto& before_position) {
    Operands<kOwn, kRankOne, T> next = fetch_forward(begin);
    for (int64_t i = begin; i < end; ++i) {
      const Operands<kOwn, kRankOne, T> x = next;
      if (i + 1 < end) next = fetch_forward(i + 1);
      before_position(i);
#pragma unroll
      for (int k = 0; k < kOwn; ++k) {
        state[k] = x.decay * state[k] + x.key * x.value[k];
        if constexpr (kRankOne) state[k] += x.left * x.u[k];
      }
    }
  };

#pragma unroll
  for (int k = 0; k < kOwn; ++k) state[k] = 0;
  // The state after the last chunk's start is made below.
  const int64_t last_begin = (layout.num_chunks - 1) * layout.chunk;
  if (last_begin > 0) {
    forward(0, last_begin, [&](int64_t i) {
      if (i % layout.chunk == 0) {
        save(checkpoints + i / layout.chunk * layout.rows);
      }
    });
  }
  save(checkpoints + (layout.num_chunks - 1) * layout.rows);

  T adjoint[kOwn];
#pragma unroll
  for (int k = 0; k < kOwn; ++k) adjoint[k] = 0;
  for (int64_t chunk = layout.num_chunks - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * layout.chunk;
    const int64_t end = min(begin + layout.chunk, length);
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      state[k] = checkpoints[chunk * layout.rows + k * layout.num_threads];
    }
    forward(begin, end,
            [&](int64_t i) { save(states + (i - begin) * layout.rows); });

    Operands<kOwn, kRankOne, T> next = fetch(end - 1);
    for (int64_t i = end - 1; i >= begin; --i) {
      const Operands<kOwn, kRankOne, T> x = next;
      T before[kOwn];
#pragma unroll
      for (int k = 0; k < kOwn; ++k) {
        before[k] = states[(i - begin) * layout.rows + k * layout.num_threads];
      }
      if (i > begin) next = fetch(i - 1);

      T dquery = 0;
      T dkey = 0;
      T ddecay = 0;
      T dleft = 0;
      T dright = 0;
      T ddiagonal = 0;
#pragma unroll
      for (int k = 0; k < kOwn; ++k) {
        const T from_output = x.query * x.dout[k];
        if (!has_diagonal) adjoint[k] += from_output;
        dquery += (has_diagonal ? before[k] : state[k]) * x.dout[k];
        dkey += adjoint[k] * x.value[k];
        ddecay += adjoint[k] * before[k];
        ddiagonal += x.dout[k] * x.value[k];
        T next_adjoint = x.decay * adjoint[k];
        if constexpr (kRankOne) {
          dleft += adjoint[k] * x.u[k];
          dright += before[k] * x.w[k];
          next_adjoint += x.right * x.w[k];
        }
        if (has_diagonal) next_adjoint += from_output;
        adjoint[k] = next_adjoint;
        state[k] = before[k];
      }
      dquery = GroupSum<kLanes>(dquery);
      dkey = GroupSum<kLanes>(dkey);
      ddecay = GroupSum<kLanes>(ddecay);
      if constexpr (kRankOne) {
        dleft = GroupSum<kLanes>(dleft);
        dright = GroupSum<kLanes>(dright);
      }
      ddiagonal = GroupSum<kLanes>(ddiagonal);
      if (writes) {
        const int64_t to = at(i) * r.key_size + n;
        if (op.dquery != nullptr) op.dquery[to] = dquery;
        if (op.dkey != nullptr) op.dkey[to] = dkey;
        if (op.ddecay != nullptr) op.ddecay[to] = ddecay;
        if constexpr (kRankOne) {
          if (op.dleft != nullptr) op.dleft[to] = dleft;
          if (op.dright != nullptr) op.dright[to] = dright;
        }
        if (op.ddiagonal != nullptr && n == 0) op.ddiagonal[at(i)] = ddiagonal;
      }
    }
  }
}

}  // namespace

template <typename T>
int64_t StateScanBackwardScratch(const StateRecurrence<T>& recurrence,
                                 int64_t value_size, int64_t num_heads) {
  return MakeLayout(recurrence, value_size, num_heads).total();
}

template <typename T>
absl::Status Run(const StateScanBackward<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  if (op.head_begin == op.head_end) return absl::OkStatus();
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const StateRecurrence<T>& r = op.recurrence;
  const Layout layout =
      MakeLayout(r, op.value_size, op.head_end - op.head_begin);
  const bool rank_one = r.left.data != nullptr;
  const bool by_rows = op.dquery != nullptr || op.dkey != nullptr ||
                       op.ddecay != nullptr || op.dleft != nullptr ||
                       op.dright != nullptr || op.ddiagonal != nullptr;

  ColumnScan<T> scan;
  scan.num_positions = r.num_positions;
  scan.num_heads = r.num_heads;
  scan.key_size = r.key_size;
  scan.value_size = op.value_size;
  scan.head_begin = op.head_begin;
  scan.head_end = op.head_end;
  scan.decay = r.decay;
  if (by_rows && rank_one) {
    scan.query = r.query;  // read, but there is no `out`
    scan.key = r.key;
    scan.left = r.left;
    scan.right = r.right;
    scan.value = op.value;
    scan.projected = op.scratch;
    LIMPID_RETURN_IF_ERROR(Launch(scan, cuda_stream));
  }
  if (op.dvalue != nullptr || (by_rows && rank_one)) {
    // Key and query, left and right, value and output change places.
    const int64_t position_stride = r.num_heads * op.value_size;
    scan.query = r.key;
    scan.key = r.query;
    scan.left = r.right;
    scan.right = r.left;
    scan.diagonal = r.diagonal;
    scan.value = {op.dout, r.num_positions * position_stride, position_stride,
                  op.value_size, 1};
    scan.backwards = true;
    scan.adds_first = r.diagonal.data == nullptr;
    scan.out = op.dvalue;
    scan.projected =
        by_rows && rank_one ? op.scratch + layout.projections : nullptr;
    LIMPID_RETURN_IF_ERROR(Launch(scan, cuda_stream));
  }
  if (!by_rows) return absl::OkStatus();

  const int64_t num_blocks = layout.num_threads / kThreads;
  LIMPID_RETURN_IF_ERROR(CheckGrid("StateScanBackward", num_blocks));
  return WithLanes(op.value_size, [&]<int kLanes, int kOwn>() {
    if (rank_one) {
      Rows<kLanes, kOwn, true, T>
          <<<static_cast<unsigned>(num_blocks), kThreads, 0, cuda_stream>>>(
              op, layout);
    } else {
      Rows<kLanes, kOwn, false, T>
          <<<static_cast<unsigned>(num_blocks), kThreads, 0, cuda_stream>>>(
              op, layout);
    }
    return CheckLaunch("StateScanBackward");
  });
}

template int64_t StateScanBackwardScratch(const StateRecurrence<float>&,
                                          int64_t, int64_t);
template int64_t StateScanBackwardScratch(const StateRecurrence<double>&,
                                          int64_t, int64_t);
template absl::Status Run(const StateScanBackward<float>&, void*);
template absl::Status Run(const StateScanBackward<double>&, void*);

}  // namespace limpid::kernels::cuda
