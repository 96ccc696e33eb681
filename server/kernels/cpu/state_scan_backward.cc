// SPDX-License-Identifier: Apache-2.0
//
// Adjoint of the recurrence (spec: appendix A). The states of all positions
// would be L N P numbers per head; kept are those before each chunk of about
// sqrt(L) positions, from which the states inside a chunk are made again when
// the adjoint, which runs backwards, comes to it. Heads go one after the other
// and share the scratch memory.
//
// With G the adjoint of the state after position i, without what later
// positions have nothing to do with, and S the state before it:
//
//   dvalue = G^T key    dkey = G value    ddecay[n] = sum_p G[n, p] S[n, p]
//   dleft = G (S^T right)    dright = S (G^T left)
//   G becomes diag(decay) G + right (left^T G)
//
// The output adds query dout^T to G: before all this if it comes from the state
// after the position, at the end if from the state before (`diagonal`).
//
// Most gradients are sums over p, so n is side by side in registers, for a few
// columns p at a time; or neighbouring heads are, if N is so small that most of
// a register would be empty.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/head_operand.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {
namespace {

// Columns that are taken together: their sums, and those over columns, fill the
// registers.
constexpr int kColumns = 4;

// Heads side by side: the choice must not depend on the range of heads, or the
// result would depend on the number of threads.
constexpr int64_t kMaxStates = 4;
constexpr int64_t kMaxNumbers = 64;
constexpr int64_t kMinHeads = 8;

template <typename T>
bool HeadsSideBySide(const StateRecurrence<T>& r, int64_t value_size) {
  return r.key_size <= kMaxStates && r.key_size * value_size <= kMaxNumbers &&
         r.num_heads >= kMinHeads;
}

constexpr int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Positions of a chunk: the root of their number.
constexpr int64_t ChunkSize(int64_t num_positions) {
  int64_t size = 1;
  while (size * size < num_positions) ++size;
  return size;
}

// Sizes in numbers of the parts of the scratch memory, in their order.
struct Layout {
  int64_t chunk;  // positions
  int64_t num_chunks;
  int64_t num_states;  // N, of which each is `width` numbers
  int64_t columns;     // P
  int64_t width;       // 1, or the heads of a group
  int64_t taken;       // columns whose states inside a chunk are kept

  int64_t state() const { return num_states * columns * width; }
  int64_t checkpoints() const { return num_chunks * state(); }
  int64_t adjoint() const { return state(); }
  // Before each position of a chunk, and after the last.
  int64_t states() const { return (chunk + 1) * num_states * taken * width; }
  // Copies of an operand, and sums for a gradient, of size N.
  int64_t operand() const { return width > 1 ? 0 : chunk * num_states; }
  // The same of size P.
  int64_t values() const { return width > 1 ? 0 : chunk * columns; }
  // S^T right at each position of a chunk.
  int64_t projections() const { return chunk * taken * width; }
  int64_t total() const {
    return checkpoints() + adjoint() + states() + 10 * operand() +
           3 * values() + projections();
  }
};

// The first parts are multiples of a register. They should start a cache line,
// or loads of the widest registers would all cross one.
constexpr int64_t kLine = 64;
template <typename T>
T* StartOfLine(T* data) {
  return reinterpret_cast<T*>(
      RoundUp(static_cast<int64_t>(reinterpret_cast<intptr_t>(data)), kLine));
}

template <typename T>
Layout ColumnsLayout(const StateRecurrence<T>& r, int64_t value_size,
                     int64_t lanes) {
  const int64_t chunk = ChunkSize(r.num_positions);
  return {chunk,
          (r.num_positions + chunk - 1) / chunk,
          RoundUp(r.key_size, lanes),
          RoundUp(value_size, kColumns),
          1,
          kColumns};
}

// Heads of a block, if heads are side by side.
template <typename T, int kBytes>
inline constexpr int kHeadWidth = 2 * kLanes<T, kBytes>;

// A group is as many blocks as have states of this many numbers together. All
// of a group go over a position before the next: positions of one head are far
// apart in memory.
constexpr int64_t kGroupNumbers = 1024;

// The same for registers of any width: blocks of narrower ones divide it.
template <typename T>
Layout HeadsLayout(const StateRecurrence<T>& r, int64_t value_size) {
  const int64_t chunk = ChunkSize(r.num_positions);
  constexpr int64_t kWidth = kHeadWidth<T, kWideBytes>;
  const int64_t most = kGroupNumbers / (r.key_size * value_size);
  return {chunk,      (r.num_positions + chunk - 1) / chunk,        r.key_size,
          value_size, std::max(most / kWidth, int64_t{1}) * kWidth, value_size};
}

// Sum of a register, by halves.
template <int kWidth, typename T>
LIMPID_INLINE T Sum(const T* in) {
  if constexpr (kWidth == 1) {
    return *in;
  } else {
    alignas(64) T half[kWidth / 2];
    for (int w = 0; w < kWidth / 2; ++w) half[w] = in[w] + in[w + kWidth / 2];
    return Sum<kWidth / 2>(half);
  }
}

// One head at a time, n side by side. States are [P, N] here, with N rounded up
// to whole registers and P to kColumns; what is added is zeros.
template <int kLanes, bool kRankOne, bool kDiagonal, typename T>
class ByColumns {
 public:
  LIMPID_INLINE explicit ByColumns(const StateScanBackward<T>& op)
      : op_(op),
        r_(op.recurrence),
        layout_(ColumnsLayout(r_, op.value_size, kLanes)),
        checkpoints_(StartOfLine(op.scratch)),
        adjoint_(checkpoints_ + layout_.checkpoints()),
        states_(adjoint_ + layout_.adjoint()),
        query_(states_ + layout_.states()),
        key_(query_ + layout_.operand()),
        decay_(key_ + layout_.operand()),
        left_(decay_ + layout_.operand()),
        right_(left_ + layout_.operand()),
        dquery_(right_ + layout_.operand()),
        dkey_(dquery_ + layout_.operand()),
        ddecay_(dkey_ + layout_.operand()),
        dleft_(ddecay_ + layout_.operand()),
        dright_(dleft_ + layout_.operand()),
        value_(dright_ + layout_.operand()),
        dout_(value_ + layout_.values()),
        dvalue_(dout_ + layout_.values()),
        projections_(dvalue_ + layout_.values()) {}

  LIMPID_INLINE void Run() {
    // The numbers that are added are written here once.
    std::fill_n(checkpoints_, layout_.total(), T{0});
    for (int64_t head = op_.head_begin; head < op_.head_end; ++head) {
      const HeadOf one(r_, head);
      for (int64_t chunk = 0; chunk + 1 < layout_.num_chunks; ++chunk) {
        Stage(one, chunk);
        for (int64_t p = 0; p < layout_.columns; p += kColumns) {
          Forward(chunk, p);
          const int64_t block = kColumns * layout_.num_states;
          std::copy_n(states_ + layout_.chunk * block, block,
                      Checkpoint(chunk + 1, p));
        }
      }
      std::fill_n(adjoint_, layout_.adjoint(), T{0});
      for (int64_t chunk = layout_.num_chunks - 1; chunk >= 0; --chunk) {
        Stage(one, chunk);
        std::fill_n(dquery_, 5 * layout_.operand(), T{0});
        for (int64_t p = 0; p < layout_.columns; p += kColumns) {
          Forward(chunk, p);
          for (int64_t t = Size(chunk) - 1; t >= 0; --t) Step(one, chunk, t, p);
        }
        Finish(one, chunk);
      }
    }
  }

 private:
  LIMPID_INLINE int64_t Size(int64_t chunk) const {
    return std::min(layout_.chunk, r_.num_positions - chunk * layout_.chunk);
  }
  // Of columns p and after. That of chunk 0 is zeros and stays so.
  LIMPID_INLINE T* Checkpoint(int64_t chunk, int64_t p) const {
    return checkpoints_ + chunk * layout_.state() + p * layout_.num_states;
  }

  // Copies the operands of a chunk to where n is side by side.
  LIMPID_INLINE void Stage(const HeadOf& head, int64_t chunk) const {
    for (int64_t t = 0; t < Size(chunk); ++t) {
      const int64_t i = chunk * layout_.chunk + t;
      Copy(r_.query, head, i, r_.key_size, query_ + t * layout_.num_states);
      Copy(r_.key, head, i, r_.key_size, key_ + t * layout_.num_states);
      Copy(r_.decay, head, i, r_.key_size, decay_ + t * layout_.num_states);
      if constexpr (kRankOne) {
        Copy(r_.left, head, i, r_.key_size, left_ + t * layout_.num_states);
        Copy(r_.right, head, i, r_.key_size, right_ + t * layout_.num_states);
      }
      Copy(op_.value, head, i, op_.value_size, value_ + t * layout_.columns);
      std::copy_n(op_.dout + Row(head, i) * op_.value_size, op_.value_size,
                  dout_ + t * layout_.columns);
    }
  }
  static LIMPID_INLINE void Copy(const HeadOperand<T>& operand,
                                 const HeadOf& head, int64_t i, int64_t count,
                                 T* out) {
    GatherElements(At(operand, head, i), operand.element_stride, count, out);
  }
  // Of outputs and of dout.
  LIMPID_INLINE int64_t Row(const HeadOf& head, int64_t i) const {
    return (head.sequence * r_.num_positions + i) * r_.num_heads + head.head;
  }

  // The states of columns [p, p + kColumns) in a chunk.
  LIMPID_INLINE void Forward(int64_t chunk, int64_t p) const {
    const int64_t num_states = layout_.num_states;
    const int64_t block = kColumns * num_states;
    std::copy_n(Checkpoint(chunk, p), block, states_);
    for (int64_t t = 0; t < Size(chunk); ++t) {
      const T* before = states_ + t * block;
      T* after = states_ + (t + 1) * block;
      const T* key = key_ + t * num_states;
      const T* decay = decay_ + t * num_states;
      const T* left = left_ + t * num_states;
      const T* value = value_ + t * layout_.columns + p;
      T projected[kColumns] = {};
      if constexpr (kRankOne) {
        const T* right = right_ + t * num_states;
        alignas(64) T sum[kColumns * kLanes] = {};
        for (int64_t n = 0; n < num_states; n += kLanes) {
          LIMPID_KEEP_LOOP
          for (int w = 0; w < kLanes; ++w) {
            LIMPID_UNROLL
            for (int c = 0; c < kColumns; ++c) {
              sum[c * kLanes + w] +=
                  right[n + w] * before[c * num_states + n + w];
            }
          }
        }
        for (int c = 0; c < kColumns; ++c) {
          projected[c] = Sum<kLanes>(sum + c * kLanes);
        }
        std::copy_n(projected, kColumns, projections_ + t * kColumns);
      }
      LIMPID_IVDEP
      for (int64_t n = 0; n < num_states; ++n) {
        LIMPID_UNROLL
        for (int c = 0; c < kColumns; ++c) {
          T s = decay[n] * before[c * num_states + n] + key[n] * value[c];
          if constexpr (kRankOne) s += left[n] * projected[c];
          after[c * num_states + n] = s;
        }
      }
    }
  }

  // Adds what columns [p, p + kColumns) give to the gradients of a position,
  // and moves their adjoint over it.
  LIMPID_INLINE void Step(const HeadOf& head, int64_t chunk, int64_t t,
                          int64_t p) const {
    const int64_t num_states = layout_.num_states;
    const int64_t block = kColumns * num_states;
    const int64_t at = t * num_states;
    const T* before = states_ + t * block;
    const T* output = kDiagonal ? before : before + block;
    const T* query = query_ + at;
    const T* key = key_ + at;
    const T* decay = decay_ + at;
    const T* left = left_ + at;
    T* __restrict dquery = dquery_ + at;
    T* __restrict dkey = dkey_ + at;
    T* __restrict ddecay = ddecay_ + at;
    T* __restrict dleft = dleft_ + at;
    T* __restrict adjoint = adjoint_ + p * num_states;
    const T* value = value_ + t * layout_.columns + p;
    const T* dout = dout_ + t * layout_.columns + p;
    const T* projected = projections_ + t * kColumns;
    alignas(64) T through_key[kColumns * kLanes] = {};
    alignas(64) T through_left[kColumns * kLanes] = {};
    for (int64_t n = 0; n < num_states; n += kLanes) {
      LIMPID_IVDEP
      LIMPID_KEEP_LOOP
      for (int w = 0; w < kLanes; ++w) {
        T query_sum = dquery[n + w];
        T key_sum = dkey[n + w];
        T decay_sum = ddecay[n + w];
        T left_sum = kRankOne ? dleft[n + w] : T{0};
        LIMPID_UNROLL
        for (int c = 0; c < kColumns; ++c) {
          const int64_t state = c * num_states + n + w;
          const T from_output = query[n + w] * dout[c];
          T gradient = adjoint[state];
          if constexpr (!kDiagonal) gradient += from_output;
          query_sum += output[state] * dout[c];
          key_sum += gradient * value[c];
          decay_sum += gradient * before[state];
          through_key[c * kLanes + w] += gradient * key[n + w];
          if constexpr (kRankOne) {
            left_sum += gradient * projected[c];
            through_left[c * kLanes + w] += gradient * left[n + w];
          }
          T next = decay[n + w] * gradient;
          if constexpr (kDiagonal) next += from_output;
          adjoint[state] = next;
        }
        dquery[n + w] = query_sum;
        dkey[n + w] = key_sum;
        ddecay[n + w] = decay_sum;
        if constexpr (kRankOne) dleft[n + w] = left_sum;
      }
    }
    T* __restrict dvalue = dvalue_ + t * layout_.columns + p;
    for (int c = 0; c < kColumns; ++c) {
      dvalue[c] = Sum<kLanes>(through_key + c * kLanes);
    }
    if constexpr (kDiagonal) {
      const T diagonal = *At(r_.diagonal, head, chunk * layout_.chunk + t);
      for (int c = 0; c < kColumns; ++c) dvalue[c] += diagonal * dout[c];
    }
    if constexpr (kRankOne) {
      const T* right = right_ + at;
      T* __restrict dright = dright_ + at;
      for (int c = 0; c < kColumns; ++c) {
        const T through = Sum<kLanes>(through_left + c * kLanes);
        LIMPID_IVDEP
        for (int64_t n = 0; n < num_states; ++n) {
          adjoint[c * num_states + n] += right[n] * through;
          dright[n] += before[c * num_states + n] * through;
        }
      }
    }
  }

  LIMPID_INLINE void Finish(const HeadOf& head, int64_t chunk) const {
    for (int64_t t = 0; t < Size(chunk); ++t) {
      const int64_t row = Row(head, chunk * layout_.chunk + t);
      Write(dquery_, t * layout_.num_states, r_.key_size, row, op_.dquery);
      Write(dkey_, t * layout_.num_states, r_.key_size, row, op_.dkey);
      Write(ddecay_, t * layout_.num_states, r_.key_size, row, op_.ddecay);
      Write(dleft_, t * layout_.num_states, r_.key_size, row, op_.dleft);
      Write(dright_, t * layout_.num_states, r_.key_size, row, op_.dright);
      Write(dvalue_, t * layout_.columns, op_.value_size, row, op_.dvalue);
      if (op_.ddiagonal != nullptr) {
        T sum = 0;
        for (int64_t p = 0; p < op_.value_size; ++p) {
          sum +=
              dout_[t * layout_.columns + p] * value_[t * layout_.columns + p];
        }
        op_.ddiagonal[row] = sum;
      }
    }
  }
  static LIMPID_INLINE void Write(const T* from, int64_t at, int64_t count,
                                  int64_t row, T* out) {
    if (out != nullptr) std::copy_n(from + at, count, out + row * count);
  }

  const StateScanBackward<T>& op_;
  const StateRecurrence<T>& r_;
  const Layout layout_;
  T* const checkpoints_;
  T* const adjoint_;
  T* const states_;
  T* const query_;
  T* const key_;
  T* const decay_;
  T* const left_;
  T* const right_;
  T* const dquery_;
  T* const dkey_;
  T* const ddecay_;
  T* const dleft_;
  T* const dright_;
  T* const value_;
  T* const dout_;
  T* const dvalue_;
  T* const projections_;
};

// A group of neighbouring heads of one sequence at a time, in blocks of kWidth.
// States of a group are [blocks, N, P, kWidth] here.
template <int kWidth, bool kRankOne, bool kDiagonal, typename T>
class ByHeads {
 public:
  LIMPID_INLINE explicit ByHeads(const StateScanBackward<T>& op)
      : op_(op),
        r_(op.recurrence),
        layout_(HeadsLayout(r_, op.value_size)),
        checkpoints_(StartOfLine(op.scratch)),
        adjoint_(checkpoints_ + layout_.checkpoints()),
        states_(adjoint_ + layout_.adjoint()),
        projections_(states_ + layout_.states()) {}

  LIMPID_INLINE void Run() {
    for (int64_t head = op_.head_begin; head < op_.head_end;) {
      const HeadOf first(r_, head);
      const int64_t count = std::min(
          {layout_.width, op_.head_end - head, r_.num_heads - first.head});
      Group(first, count);
      head += count;
    }
  }

 private:
  LIMPID_INLINE int64_t Size(int64_t chunk) const {
    return std::min(layout_.chunk, r_.num_positions - chunk * layout_.chunk);
  }
  LIMPID_INLINE int64_t Row(const HeadOf& head, int64_t i) const {
    return (head.sequence * r_.num_positions + i) * r_.num_heads + head.head;
  }

  // `count` heads from `head` on.
  LIMPID_INLINE void Group(const HeadOf& head, int64_t count) const {
    std::fill_n(checkpoints_, layout_.state(), T{0});
    for (int64_t chunk = 0; chunk + 1 < layout_.num_chunks; ++chunk) {
      Forward(head, count, chunk);
      std::copy_n(states_ + layout_.chunk * layout_.state(), layout_.state(),
                  checkpoints_ + (chunk + 1) * layout_.state());
    }
    std::fill_n(adjoint_, layout_.adjoint(), T{0});
    for (int64_t chunk = layout_.num_chunks - 1; chunk >= 0; --chunk) {
      Forward(head, count, chunk);
      for (int64_t t = Size(chunk) - 1; t >= 0; --t) {
        for (int64_t first = 0; first < count; first += kWidth) {
          Step(Block(head, first), Count(count, first), first, chunk, t);
        }
      }
    }
  }
  LIMPID_INLINE void Forward(const HeadOf& head, int64_t count,
                             int64_t chunk) const {
    std::copy_n(checkpoints_ + chunk * layout_.state(), layout_.state(),
                states_);
    for (int64_t t = 0; t < Size(chunk); ++t) {
      for (int64_t first = 0; first < count; first += kWidth) {
        StepForward(Block(head, first), Count(count, first), first, chunk, t);
      }
    }
  }
  static LIMPID_INLINE HeadOf Block(HeadOf head, int64_t first) {
    head.head += first;
    return head;
  }
  static LIMPID_INLINE int Count(int64_t count, int64_t first) {
    return static_cast<int>(std::min<int64_t>(kWidth, count - first));
  }
  // Where the block that starts with head `first` of its group is.
  LIMPID_INLINE int64_t StateAt(int64_t first) const {
    return first * layout_.num_states * layout_.columns;
  }
  LIMPID_INLINE T* Projected(int64_t first, int64_t t) const {
    return projections_ + (t * layout_.width + first) * layout_.columns;
  }

  // Number n of an operand.
  static LIMPID_INLINE void Load(const HeadOperand<T>& operand,
                                 const HeadOf& head, int64_t i, int64_t n,
                                 int count, T* __restrict out) {
    Gather<kWidth>(At(operand, head, i) + n * operand.element_stride,
                   operand.head_stride, count, out);
  }
  // Number n of a gradient whose size is `size`.
  LIMPID_INLINE void Store(const T* in, const HeadOf& head, int64_t i,
                           int64_t n, int64_t size, int count, T* out) const {
    if (out == nullptr) return;
    Scatter<kWidth>(in, size, count, out + Row(head, i) * size + n);
  }

  // Position t of a chunk, for the block that starts with head `first` of its
  // group.
  LIMPID_INLINE void StepForward(const HeadOf& head, int count, int64_t first,
                                 int64_t chunk, int64_t t) const {
    const int64_t i = chunk * layout_.chunk + t;
    const int64_t columns = layout_.columns;
    const T* before = states_ + t * layout_.state() + StateAt(first);
    T* __restrict after = states_ + (t + 1) * layout_.state() + StateAt(first);
    T* projected = Projected(first, t);
    if constexpr (kRankOne) {
      std::fill_n(projected, columns * kWidth, T{0});
      for (int64_t n = 0; n < layout_.num_states; ++n) {
        alignas(64) T right[kWidth];
        Load(r_.right, head, i, n, count, right);
        for (int64_t p = 0; p < columns; ++p) {
          for (int w = 0; w < kWidth; ++w) {
            projected[p * kWidth + w] +=
                right[w] * before[(n * columns + p) * kWidth + w];
          }
        }
      }
    }
    for (int64_t p = 0; p < columns; ++p) {
      alignas(64) T value[kWidth];
      Load(op_.value, head, i, p, count, value);
      for (int64_t n = 0; n < layout_.num_states; ++n) {
        alignas(64) T key[kWidth];
        alignas(64) T decay[kWidth];
        alignas(64) T left[kWidth];
        Load(r_.key, head, i, n, count, key);
        Load(r_.decay, head, i, n, count, decay);
        if constexpr (kRankOne) Load(r_.left, head, i, n, count, left);
        const int64_t at = (n * columns + p) * kWidth;
        for (int w = 0; w < kWidth; ++w) {
          T s = decay[w] * before[at + w] + key[w] * value[w];
          if constexpr (kRankOne) s += left[w] * projected[p * kWidth + w];
          after[at + w] = s;
        }
      }
    }
  }

  // Gradients of that position.
  LIMPID_INLINE void Step(const HeadOf& head, int count, int64_t first,
                          int64_t chunk, int64_t t) const {
    const int64_t i = chunk * layout_.chunk + t;
    const int64_t num_states = layout_.num_states;
    const int64_t columns = layout_.columns;
    const T* before = states_ + t * layout_.state() + StateAt(first);
    const T* output = kDiagonal ? before : before + layout_.state();
    const T* projected = Projected(first, t);
    T* __restrict adjoint = adjoint_ + StateAt(first);
    alignas(64) T dquery[kMaxStates * kWidth];
    alignas(64) T dkey[kMaxStates * kWidth];
    alignas(64) T ddecay[kMaxStates * kWidth];
    alignas(64) T dleft[kMaxStates * kWidth];
    alignas(64) T dright[kMaxStates * kWidth];
    alignas(64) T ddiagonal[kWidth] = {};
    for (int64_t at = 0; at < num_states * kWidth; ++at) {
      dquery[at] = dkey[at] = ddecay[at] = dleft[at] = dright[at] = 0;
    }
    for (int64_t p = 0; p < columns; ++p) {
      alignas(64) T value[kWidth];
      alignas(64) T dout[kWidth];
      alignas(64) T dvalue[kWidth] = {};
      alignas(64) T through_left[kWidth] = {};
      Load(op_.value, head, i, p, count, value);
      Gather<kWidth>(op_.dout + Row(head, i) * columns + p, columns, count,
                     dout);
      if constexpr (kDiagonal) {
        alignas(64) T diagonal[kWidth];
        Load(r_.diagonal, head, i, 0, count, diagonal);
        for (int w = 0; w < kWidth; ++w) {
          dvalue[w] = diagonal[w] * dout[w];
          ddiagonal[w] += dout[w] * value[w];
        }
      }
      for (int64_t n = 0; n < num_states; ++n) {
        alignas(64) T query[kWidth];
        alignas(64) T key[kWidth];
        alignas(64) T decay[kWidth];
        alignas(64) T left[kWidth];
        Load(r_.query, head, i, n, count, query);
        Load(r_.key, head, i, n, count, key);
        Load(r_.decay, head, i, n, count, decay);
        if constexpr (kRankOne) Load(r_.left, head, i, n, count, left);
        const int64_t at = (n * columns + p) * kWidth;
        LIMPID_KEEP_LOOP
        for (int w = 0; w < kWidth; ++w) {
          T gradient = adjoint[at + w];
          if constexpr (!kDiagonal) gradient += query[w] * dout[w];
          dquery[n * kWidth + w] += output[at + w] * dout[w];
          dkey[n * kWidth + w] += gradient * value[w];
          ddecay[n * kWidth + w] += gradient * before[at + w];
          dvalue[w] += gradient * key[w];
          if constexpr (kRankOne) {
            dleft[n * kWidth + w] += gradient * projected[p * kWidth + w];
            through_left[w] += gradient * left[w];
          }
          T next = decay[w] * gradient;
          if constexpr (kDiagonal) next += query[w] * dout[w];
          adjoint[at + w] = next;
        }
      }
      if constexpr (kRankOne) {
        for (int64_t n = 0; n < num_states; ++n) {
          alignas(64) T right[kWidth];
          Load(r_.right, head, i, n, count, right);
          const int64_t at = (n * columns + p) * kWidth;
          for (int w = 0; w < kWidth; ++w) {
            adjoint[at + w] += right[w] * through_left[w];
            dright[n * kWidth + w] += before[at + w] * through_left[w];
          }
        }
      }
      Store(dvalue, head, i, p, columns, count, op_.dvalue);
    }
    for (int64_t n = 0; n < num_states; ++n) {
      const int64_t at = n * kWidth;
      Store(dquery + at, head, i, n, num_states, count, op_.dquery);
      Store(dkey + at, head, i, n, num_states, count, op_.dkey);
      Store(ddecay + at, head, i, n, num_states, count, op_.ddecay);
      Store(dleft + at, head, i, n, num_states, count, op_.dleft);
      Store(dright + at, head, i, n, num_states, count, op_.dright);
    }
    Store(ddiagonal, head, i, 0, 1, count, op_.ddiagonal);
  }

  const StateScanBackward<T>& op_;
  const StateRecurrence<T>& r_;
  const Layout layout_;
  T* const checkpoints_;
  T* const adjoint_;
  T* const states_;
  T* const projections_;
};

template <bool kRankOne, bool kDiagonal>
struct BackwardKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const StateScanBackward<T>& op) {
    if (HeadsSideBySide(op.recurrence, op.value_size)) {
      ByHeads<kHeadWidth<T, kBytes>, kRankOne, kDiagonal, T>(op).Run();
    } else {
      ByColumns<kLanes<T, kBytes>, kRankOne, kDiagonal, T>(op).Run();
    }
  }
};

}  // namespace

template <typename T>
int64_t StateScanBackwardScratch(const StateRecurrence<T>& recurrence,
                                 int64_t value_size, int64_t /*num_heads*/) {
  // The same for any processor: what the widest registers need is the most.
  constexpr int64_t kAlignment = kLine / sizeof(T);
  if (HeadsSideBySide(recurrence, value_size)) {
    return HeadsLayout(recurrence, value_size).total() + kAlignment;
  }
  return ColumnsLayout(recurrence, value_size, kLanes<T, kWideBytes>).total() +
         kAlignment;
}

template <typename T>
absl::Status Run(const StateScanBackward<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  if (op.head_begin == op.head_end) return absl::OkStatus();
  const FlushDenormals flush;
  const bool rank_one = op.recurrence.left.data != nullptr;
  const bool diagonal = op.recurrence.diagonal.data != nullptr;
  if (rank_one && diagonal) {
    DispatchSimd<T, BackwardKernel<true, true>>(op);
  } else if (rank_one) {
    DispatchSimd<T, BackwardKernel<true, false>>(op);
  } else if (diagonal) {
    DispatchSimd<T, BackwardKernel<false, true>>(op);
  } else {
    DispatchSimd<T, BackwardKernel<false, false>>(op);
  }
  return absl::OkStatus();
}

template int64_t StateScanBackwardScratch(const StateRecurrence<float>&,
                                          int64_t, int64_t);
template int64_t StateScanBackwardScratch(const StateRecurrence<double>&,
                                          int64_t, int64_t);
template absl::Status Run(const StateScanBackward<float>&);
template absl::Status Run(const StateScanBackward<double>&);

}  // namespace limpid::kernels::cpu
