// SPDX-License-Identifier: Apache-2.0
//
// The recurrence, position by position. Columns of a state do not see each
// other, nor do heads, so either can lie side by side in registers:
//
// - Columns, a panel of them at a time: the panel's part of the state stays in
//   the first cache, and the operands of size N are numbers that all share.
// - Neighbouring heads, where a state is so small that its columns would leave
//   most of a register empty (RG-LRU and RWKV-4 have thousands of heads of one
//   or two columns).
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/head_operand.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/ops.h"
#include "server/kernels/sequences.h"

namespace limpid::kernels::cpu {
namespace {

// When heads are side by side. The choice must not depend on the range of
// heads, or the result would depend on the number of threads.
constexpr int64_t kMaxColumns = 4;
constexpr int64_t kMaxNumbers = 64;
constexpr int64_t kMinHeads = 8;

template <typename T>
bool HeadsSideBySide(const StateScan<T>& op) {
  return op.value_size <= kMaxColumns &&
         op.value_size * op.recurrence.key_size <= kMaxNumbers &&
         op.recurrence.num_heads >= kMinHeads;
}

// States that a sum goes over before it goes to memory.
constexpr int kPart = 4;
static_assert(kMaxStateSize % kPart == 0);

template <bool kRankOne, bool kDiagonal>
struct Scan {
  // Columns [first, first + count) of one head.
  template <int kWidth, typename T>
  static LIMPID_INLINE void Columns(const StateScan<T>& op, const HeadOf& head,
                                    int64_t first, int count) {
    const StateRecurrence<T>& r = op.recurrence;
    const int64_t num_states = r.key_size;
    // Beyond the last one there are zeros.
    alignas(64) T state[kMaxStateSize * kWidth];
    alignas(64) T query[kMaxStateSize] = {};
    alignas(64) T key[kMaxStateSize] = {};
    alignas(64) T decay[kMaxStateSize] = {};
    alignas(64) T left[kMaxStateSize] = {};
    alignas(64) T right[kMaxStateSize] = {};
    std::fill_n(state, (num_states + kPart - 1) / kPart * kPart * kWidth, T{0});
    const Span span = SpanInOperands(head.sequence, r.num_positions, op.begins);
    for (int64_t i = span.begin; i < span.end; ++i) {
      LoadElements(r.query, head, i, num_states, query);
      LoadElements(r.key, head, i, num_states, key);
      LoadElements(r.decay, head, i, num_states, decay);
      alignas(64) T value[kWidth];
      alignas(64) T projected[kWidth] = {};
      alignas(64) T out[kWidth] = {};
      Gather<kWidth>(At(op.value, head, i) + first * op.value.element_stride,
                     op.value.element_stride, count, value);
      if constexpr (kRankOne) {
        LoadElements(r.left, head, i, num_states, left);
        LoadElements(r.right, head, i, num_states, right);
        for (int64_t n = 0; n < num_states; n += kPart) {
          LIMPID_KEEP_LOOP
          for (int w = 0; w < kWidth; ++w) {
            T sum = projected[w];
            LIMPID_UNROLL
            for (int k = 0; k < kPart; ++k) {
              sum += right[n + k] * state[(n + k) * kWidth + w];
            }
            projected[w] = sum;
          }
        }
      }
      for (int64_t n = 0; n < num_states; n += kPart) {
        LIMPID_KEEP_LOOP
        for (int w = 0; w < kWidth; ++w) {
          T sum = out[w];
          LIMPID_UNROLL
          for (int k = 0; k < kPart; ++k) {
            const T before = state[(n + k) * kWidth + w];
            T after = decay[n + k] * before + key[n + k] * value[w];
            if constexpr (kRankOne) after += left[n + k] * projected[w];
            state[(n + k) * kWidth + w] = after;
            sum += query[n + k] * (kDiagonal ? before : after);
          }
          out[w] = sum;
        }
      }
      if constexpr (kDiagonal) {
        const T diagonal = *At(r.diagonal, head, i);
        for (int w = 0; w < kWidth; ++w) out[w] += diagonal * value[w];
      }
      StoreLanes<kWidth>(out, count, Out(op, head, i) + first);
    }
  }

  // `num_heads` heads from `head` on, all of the same sequence. All go over a
  // position before the next: positions of one head are far apart in memory.
  template <int kWidth, typename T>
  static LIMPID_INLINE void Heads(const StateScan<T>& op, const HeadOf& head,
                                  int64_t num_heads) {
    const StateRecurrence<T>& r = op.recurrence;
    const int64_t size = r.key_size * op.value_size * kWidth;
    alignas(64) T state[kMaxNumbers * kWidth];
    std::fill_n(state, (num_heads + kWidth - 1) / kWidth * size, T{0});
    const Span span = SpanInOperands(head.sequence, r.num_positions, op.begins);
    for (int64_t i = span.begin; i < span.end; ++i) {
      T* block_state = state;
      for (int64_t first = 0; first < num_heads; first += kWidth) {
        HeadOf block = head;
        block.head += first;
        Step<kWidth>(
            op, block,
            static_cast<int>(std::min<int64_t>(kWidth, num_heads - first)), i,
            block_state);
        block_state += size;
      }
    }
  }

  // One position of `count` heads from `head` on.
  template <int kWidth, typename T>
  static LIMPID_INLINE void Step(const StateScan<T>& op, const HeadOf& head,
                                 int count, int64_t i, T* __restrict state) {
    const StateRecurrence<T>& r = op.recurrence;
    const int64_t num_states = r.key_size;
    const int64_t columns = op.value_size;
    alignas(64) T value[kMaxColumns * kWidth];
    alignas(64) T projected[kMaxColumns * kWidth];
    alignas(64) T out[kMaxColumns * kWidth];
    for (int64_t p = 0; p < columns; ++p) {
      Gather<kWidth>(At(op.value, head, i) + p * op.value.element_stride,
                     op.value.head_stride, count, value + p * kWidth);
      for (int w = 0; w < kWidth; ++w) {
        projected[p * kWidth + w] = 0;
        out[p * kWidth + w] = 0;
      }
    }
    if constexpr (kRankOne) {
      for (int64_t n = 0; n < num_states; ++n) {
        alignas(64) T right[kWidth];
        Load<kWidth>(r.right, head, i, n, count, right);
        for (int64_t p = 0; p < columns; ++p) {
          const T* column = state + (n * columns + p) * kWidth;
          for (int w = 0; w < kWidth; ++w) {
            projected[p * kWidth + w] += right[w] * column[w];
          }
        }
      }
    }
    for (int64_t n = 0; n < num_states; ++n) {
      alignas(64) T query[kWidth];
      alignas(64) T key[kWidth];
      alignas(64) T decay[kWidth];
      alignas(64) T left[kWidth];
      Load<kWidth>(r.query, head, i, n, count, query);
      Load<kWidth>(r.key, head, i, n, count, key);
      Load<kWidth>(r.decay, head, i, n, count, decay);
      if constexpr (kRankOne) Load<kWidth>(r.left, head, i, n, count, left);
      for (int64_t p = 0; p < columns; ++p) {
        T* column = state + (n * columns + p) * kWidth;
        LIMPID_KEEP_LOOP
        for (int w = 0; w < kWidth; ++w) {
          const T before = column[w];
          T after = decay[w] * before + key[w] * value[p * kWidth + w];
          if constexpr (kRankOne) {
            after += left[w] * projected[p * kWidth + w];
          }
          column[w] = after;
          out[p * kWidth + w] += query[w] * (kDiagonal ? before : after);
        }
      }
    }
    alignas(64) T diagonal[kWidth];
    if constexpr (kDiagonal) {
      Load<kWidth>(r.diagonal, head, i, 0, count, diagonal);
    }
    for (int64_t p = 0; p < columns; ++p) {
      if constexpr (kDiagonal) {
        for (int w = 0; w < kWidth; ++w) {
          out[p * kWidth + w] += diagonal[w] * value[p * kWidth + w];
        }
      }
      Scatter<kWidth>(out + p * kWidth, columns, count, Out(op, head, i) + p);
    }
  }

  template <typename T>
  static LIMPID_INLINE T* Out(const StateScan<T>& op, const HeadOf& head,
                              int64_t i) {
    const StateRecurrence<T>& r = op.recurrence;
    const int64_t before =
        PositionsBefore(head.sequence, r.num_positions, op.begins);
    return op.out + ((before + i) * r.num_heads + head.head) * op.value_size;
  }

  template <typename T>
  static LIMPID_INLINE void LoadElements(const HeadOperand<T>& operand,
                                         const HeadOf& head, int64_t i,
                                         int64_t count, T* __restrict out) {
    GatherElements(At(operand, head, i), operand.element_stride, count, out);
  }
  // Number n of `count` heads.
  template <int kWidth, typename T>
  static LIMPID_INLINE void Load(const HeadOperand<T>& operand,
                                 const HeadOf& head, int64_t i, int64_t n,
                                 int count, T* __restrict out) {
    Gather<kWidth>(At(operand, head, i) + n * operand.element_stride,
                   operand.head_stride, count, out);
  }
};

template <bool kRankOne, bool kDiagonal>
struct ScanKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const StateScan<T>& op) {
    using Scan = Scan<kRankOne, kDiagonal>;
    if (HeadsSideBySide(op)) {
      constexpr int kWidth = 2 * kLanes<T, kBytes>;
      // As many as there is room for.
      const int64_t most =
          kMaxNumbers / (op.recurrence.key_size * op.value_size) * kWidth;
      for (int64_t head = op.head_begin; head < op.head_end;) {
        const HeadOf first(op.recurrence, head);
        const int64_t count = std::min(
            {most, op.head_end - head, op.recurrence.num_heads - first.head});
        Scan::template Heads<kWidth>(op, first, count);
        head += count;
      }
      return;
    }
    constexpr int kNarrow = kLanes<T, kBytes>;
    constexpr int kWidth = 2 * kNarrow;
    for (int64_t head = op.head_begin; head < op.head_end; ++head) {
      const HeadOf one(op.recurrence, head);
      int64_t first = 0;
      for (; op.value_size - first > kNarrow; first += kWidth) {
        Scan::template Columns<kWidth>(
            op, one, first,
            static_cast<int>(std::min<int64_t>(kWidth, op.value_size - first)));
      }
      if (first < op.value_size) {
        Scan::template Columns<kNarrow>(
            op, one, first, static_cast<int>(op.value_size - first));
      }
    }
  }
};

}  // namespace

template <typename T>
absl::Status Run(const StateScan<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const FlushDenormals flush;
  const bool rank_one = op.recurrence.left.data != nullptr;
  const bool diagonal = op.recurrence.diagonal.data != nullptr;
  if (rank_one && diagonal) {
    DispatchSimd<T, ScanKernel<true, true>>(op);
  } else if (rank_one) {
    DispatchSimd<T, ScanKernel<true, false>>(op);
  } else if (diagonal) {
    DispatchSimd<T, ScanKernel<false, true>>(op);
  } else {
    DispatchSimd<T, ScanKernel<false, false>>(op);
  }
  return absl::OkStatus();
}

template absl::Status Run(const StateScan<float>&);
template absl::Status Run(const StateScan<double>&);

}  // namespace limpid::kernels::cpu
