// SPDX-License-Identifier: Apache-2.0
//
// The matrices of heads, in one of two ways.
//
// A few rows: backwards from each row, with neighbouring heads side by side in
// registers. A row keeps g = F_{j+1}^T ... F_last^T query, N numbers per head.
//
// More rows: as products of matrices. Positions come in chunks. With F_c the
// product of all F of chunk c, an entry whose row i is in chunk r and whose
// column j in an earlier chunk c is
//
//   A[i, j] = (F_{c+1}^T ... F_{r-1}^T Q_i) . K_j,
//
// where Q_i is the query carried backwards to the start of chunk r and K_j the
// key carried forwards to the end of chunk c. Both are made once per head; what
// is left per entry is a product of N terms. With
// F_m = diag(decay_m) + left_m right_m^T, to go through a whole chunk is
//
//   F_c^T g = diag(D) g + sum over m in c of R_m (L_m . g),
//
// where L_m is left_m carried forwards to the end of the chunk, as the keys
// are, R_m is right_m times the decays before it, and D the product of all
// decays: again products of matrices. Nothing grows: there are only factors
// that the recurrence itself has, and no quotients.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/aligned_buffer.h"
#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/head_operand.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/cpu/tile_product.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {
namespace {

// To carry the keys forwards costs as much as this many rows the other way.
constexpr int64_t kMaxRowsBackwards = 4;

// ---- A few rows ----

// Entries that are turned around, from heads side by side to positions side by
// side, and go to memory together.
constexpr int kTile = 16;

// Blocks of heads that go over a position together, at most: positions of one
// head are far apart in memory, those of neighbouring heads are not.
constexpr int64_t kMaxBlocks = 16;

template <bool kRankOne, bool kDiagonal>
struct Backwards {
  // One row of `num_heads` heads from `head` on; `out` is that row of the
  // first, and `plane` the distance to the same row of the next.
  template <int kWidth, typename T>
  static LIMPID_INLINE void Row(const StateAttention<T>& op, const HeadOf& head,
                                int64_t num_heads, int64_t row, T* out,
                                int64_t plane) {
    const StateRecurrence<T>& r = op.recurrence;
    alignas(64) T g[kMaxStateSize * kWidth];
    alignas(64) T entries[kMaxBlocks * kTile * kWidth];
    for (int64_t first = 0; first < num_heads; first += kWidth) {
      for (int64_t n = 0; n < r.key_size; ++n) {
        Load<kWidth>(r.query, Block(head, first), row, n,
                     Count<kWidth>(num_heads, first),
                     g + first * r.key_size + n * kWidth);
      }
    }
    for (int64_t begin = row / kTile * kTile; begin >= 0; begin -= kTile) {
      const int64_t columns = std::min<int64_t>(kTile, row + 1 - begin);
      for (int64_t x = columns - 1; x >= 0; --x) {
        for (int64_t first = 0; first < num_heads; first += kWidth) {
          const int count = Count<kWidth>(num_heads, first);
          T* entry = entries + first * kTile + x * kWidth;
          if (kDiagonal && begin + x == row) {
            Load<kWidth>(r.diagonal, Block(head, first), row, 0, count, entry);
          } else {
            Step<kWidth>(op, Block(head, first), count, begin + x,
                         g + first * r.key_size, entry);
          }
        }
      }
      for (int64_t h = 0; h < num_heads; ++h) {
        const T* entry = entries + h / kWidth * kWidth * kTile + h % kWidth;
        for (int64_t x = 0; x < columns; ++x) {
          out[h * plane + begin + x] = entry[x * kWidth];
        }
      }
    }
    for (int64_t h = 0; h < num_heads; ++h) {
      std::fill_n(out + h * plane + row + 1, r.num_positions - row - 1, T{0});
    }
  }
  static LIMPID_INLINE HeadOf Block(HeadOf head, int64_t first) {
    head.head += first;
    return head;
  }
  template <int kWidth>
  static LIMPID_INLINE int Count(int64_t num_heads, int64_t first) {
    return static_cast<int>(std::min<int64_t>(kWidth, num_heads - first));
  }

  // entry = key_j . g, then g to the other side of position j.
  template <int kWidth, typename T>
  static LIMPID_INLINE void Step(const StateAttention<T>& op,
                                 const HeadOf& head, int count, int64_t j,
                                 T* __restrict g, T* __restrict entry) {
    const StateRecurrence<T>& r = op.recurrence;
    alignas(64) T sum[kWidth] = {};
    alignas(64) T projected[kWidth] = {};
    alignas(64) T key[kWidth];
    alignas(64) T decay[kWidth];
    alignas(64) T left[kWidth];
    alignas(64) T right[kWidth];
    for (int64_t n = 0; n < r.key_size; ++n) {
      T* g_n = g + n * kWidth;
      Load<kWidth>(r.key, head, j, n, count, key);
      Load<kWidth>(r.decay, head, j, n, count, decay);
      if constexpr (kRankOne) Load<kWidth>(r.left, head, j, n, count, left);
      LIMPID_KEEP_LOOP
      for (int w = 0; w < kWidth; ++w) {
        sum[w] += key[w] * g_n[w];
        if constexpr (kRankOne) projected[w] += left[w] * g_n[w];
        g_n[w] *= decay[w];
      }
    }
    if constexpr (kRankOne) {
      for (int64_t n = 0; n < r.key_size; ++n) {
        Load<kWidth>(r.right, head, j, n, count, right);
        LIMPID_KEEP_LOOP
        for (int w = 0; w < kWidth; ++w) {
          g[n * kWidth + w] += right[w] * projected[w];
        }
      }
    }
    for (int w = 0; w < kWidth; ++w) entry[w] = sum[w];
  }

  template <int kWidth, typename T>
  static LIMPID_INLINE void Load(const HeadOperand<T>& operand,
                                 const HeadOf& head, int64_t i, int64_t n,
                                 int count, T* __restrict out) {
    Gather<kWidth>(At(operand, head, i) + n * operand.element_stride,
                   operand.head_stride, count, out);
  }
};

template <bool kRankOne, bool kDiagonal>
struct BackwardsKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const StateAttention<T>& op) {
    constexpr int kWidth = kChannelBlock<T, kBytes>;
    const StateRecurrence<T>& r = op.recurrence;
    const int64_t plane = (op.row_end - op.row_begin) * r.num_positions;
    // As many as there is room for.
    const int64_t most =
        std::min(kMaxBlocks, kMaxStateSize / r.key_size) * kWidth;
    for (int64_t first = op.head_begin; first < op.head_end; first += most) {
      const HeadOf head(r, op.sequence * r.num_heads + first);
      T* out = op.out + (first - op.head_begin) * plane;
      for (int64_t row = op.row_begin; row < op.row_end; ++row) {
        Backwards<kRankOne, kDiagonal>::template Row<kWidth>(
            op, head, std::min(most, op.head_end - first), row,
            out + (row - op.row_begin) * r.num_positions, plane);
      }
    }
  }
};

// ---- More rows ----

constexpr int kChunk = 32;
// Rows of a tile product, at most; sizes that it goes over are rounded up.
constexpr int kMaxTileRows = 8;

// Memory for one head at a time.
template <typename T>
struct Workspace {
  explicit Workspace(const StateAttention<T>& op)
      : op(op),
        num_states(op.recurrence.key_size),
        padded_states((num_states + kMaxTileRows - 1) / kMaxTileRows *
                      kMaxTileRows),
        // Entries of the last chunk are all in the triangle.
        num_chunks((op.row_end - 1) / kChunk),
        keys((num_chunks + 1) * num_states * kChunk),
        lefts(HasRankOne() ? (num_chunks + 1) * num_states * kChunk : 0),
        rights(HasRankOne() ? (num_chunks + 1) * kChunk * padded_states : 0),
        decays((num_chunks + 1) * num_states),
        queries(num_states * kChunk),
        projected(kChunk * kChunk) {}
  bool HasRankOne() const { return op.recurrence.left.data != nullptr; }

  const StateAttention<T>& op;
  int64_t num_states;
  int64_t padded_states;
  int64_t num_chunks;  // before the last one
  // Of all chunks, [.., chunk, ..] of the sizes that follow.
  AlignedBuffer<T> keys;       // [N, kChunk]: K
  AlignedBuffer<T> lefts;      // [N, kChunk]: L
  AlignedBuffer<T> rights;     // [kChunk, padded_states]: R
  AlignedBuffer<T> decays;     // [N]: D
  AlignedBuffer<T> queries;    // [N, kChunk]: of the current chunk of rows
  AlignedBuffer<T> projected;  // [kChunk, kChunk]: L_m . g
};

template <int kBytes, bool kRankOne, bool kDiagonal>
struct Chunked {
  // Sums of a tile and a row of its right factor fill the registers but for a
  // few.
  static constexpr int kRows = kBytes == kWideBytes ? 8 : 4;
  template <typename T>
  static constexpr int kPanel = 2 * kLanes<T, kBytes>;

  template <typename T>
  static LIMPID_INLINE void Head(Workspace<T>& work, const HeadOf& head,
                                 T* out) {
    const StateAttention<T>& op = work.op;
    for (int64_t chunk = 0; chunk <= work.num_chunks; ++chunk) {
      CarryKeys(work, head, chunk, out);
    }
    for (int64_t chunk = op.row_begin / kChunk; chunk <= work.num_chunks;
         ++chunk) {
      CarryQueries(work, head, chunk);
      for (int64_t column = chunk - 1; column >= 0; --column) {
        Multiply(work, chunk, column, out);
        if (column > 0) CrossChunk(work, column);
      }
    }
  }

  // x = F x for the kChunk columns of x, [N, kChunk].
  template <typename T>
  static LIMPID_INLINE void Apply(const T* decay, int64_t decay_stride,
                                  const T* left, int64_t left_stride,
                                  const T* right, int64_t right_stride,
                                  int64_t num_states, T* __restrict x) {
    alignas(64) T projected[kChunk];
    if constexpr (kRankOne) {
      TileProduct<1, kChunk>(right, right_stride, x, kChunk, num_states,
                             projected, kChunk);
    }
    for (int64_t n = 0; n < num_states; ++n) {
      const T decay_n = decay[n * decay_stride];
      const T left_n = kRankOne ? left[n * left_stride] : T{0};
      LIMPID_KEEP_LOOP
      for (int w = 0; w < kChunk; ++w) {
        T x_n = decay_n * x[n * kChunk + w];
        if constexpr (kRankOne) x_n += left_n * projected[w];
        x[n * kChunk + w] = x_n;
      }
    }
  }

  // Column `column` of x = the N numbers at `in`.
  template <typename T>
  static LIMPID_INLINE void Insert(const T* in, int64_t stride,
                                   int64_t num_states, int64_t column,
                                   T* __restrict x) {
    for (int64_t n = 0; n < num_states; ++n) {
      x[n * kChunk + column] = in[n * stride];
    }
  }

  // Makes K, L, R and D of a chunk, and on the way its triangle of the matrix
  // and the zeros above it. Keys that have not come yet are zeros.
  template <typename T>
  static LIMPID_INLINE void CarryKeys(Workspace<T>& work, const HeadOf& head,
                                      int64_t chunk, T* out) {
    const StateAttention<T>& op = work.op;
    const StateRecurrence<T>& r = op.recurrence;
    const int64_t num_states = work.num_states;
    T* key = work.keys.data() + chunk * num_states * kChunk;
    T* left = nullptr;
    T* right = nullptr;
    T* decay = work.decays.data() + chunk * num_states;
    std::fill_n(key, num_states * kChunk, T{0});
    std::fill_n(decay, num_states, T{1});
    if constexpr (kRankOne) {
      left = work.lefts.data() + chunk * num_states * kChunk;
      right = work.rights.data() + chunk * kChunk * work.padded_states;
      std::fill_n(left, num_states * kChunk, T{0});
      std::fill_n(right, kChunk * work.padded_states, T{0});
    }
    const int64_t begin = chunk * kChunk;
    const int64_t size = std::min<int64_t>(kChunk, op.row_end - begin);
    for (int64_t t = 0; t < size; ++t) {
      const int64_t i = begin + t;
      T* row = i < op.row_begin ? nullptr
                                : out + (i - op.row_begin) * r.num_positions;
      if (kDiagonal && row != nullptr) {
        WriteTriangle(r, head, i, t, key, row);
        row[i] = *At(r.diagonal, head, i);
      }
      const T* decay_i = At(r.decay, head, i);
      const int64_t decay_stride = r.decay.element_stride;
      const T* left_i = nullptr;
      const T* right_i = nullptr;
      if constexpr (kRankOne) {
        left_i = At(r.left, head, i);
        right_i = At(r.right, head, i);
        for (int64_t n = 0; n < num_states; ++n) {
          right[t * work.padded_states + n] =
              right_i[n * r.right.element_stride] * decay[n];
        }
        Apply(decay_i, decay_stride, left_i, r.left.element_stride, right_i,
              r.right.element_stride, num_states, left);
        Insert(left_i, r.left.element_stride, num_states, t, left);
      }
      Apply(decay_i, decay_stride, left_i, r.left.element_stride, right_i,
            r.right.element_stride, num_states, key);
      Insert(At(r.key, head, i), r.key.element_stride, num_states, t, key);
      for (int64_t n = 0; n < num_states; ++n) {
        decay[n] *= decay_i[n * decay_stride];
      }
      if (!kDiagonal && row != nullptr) {
        WriteTriangle(r, head, i, t + 1, key, row);
      }
    }
  }

  // The first `count` entries of row i in its own chunk, and zeros to the right
  // of the diagonal.
  template <typename T>
  static LIMPID_INLINE void WriteTriangle(const StateRecurrence<T>& r,
                                          const HeadOf& head, int64_t i,
                                          int64_t count, const T* key,
                                          T* __restrict row) {
    alignas(64) T sum[kChunk];
    TileProduct<1, kChunk>(At(r.query, head, i), r.query.element_stride, key,
                           kChunk, r.key_size, sum, kChunk);
    std::copy_n(sum, count, row + i / kChunk * kChunk);
    std::fill_n(row + i + 1, r.num_positions - i - 1, T{0});
  }

  // Makes Q. Rows that are not asked for stay zeros.
  template <typename T>
  static LIMPID_INLINE void CarryQueries(Workspace<T>& work, const HeadOf& head,
                                         int64_t chunk) {
    const StateAttention<T>& op = work.op;
    const StateRecurrence<T>& r = op.recurrence;
    T* queries = work.queries.data();
    std::fill_n(queries, work.num_states * kChunk, T{0});
    const int64_t begin = chunk * kChunk;
    for (int64_t i = std::min(begin + kChunk, op.row_end) - 1; i >= begin;
         --i) {
      if (!kDiagonal && i >= op.row_begin) {
        Insert(At(r.query, head, i), r.query.element_stride, work.num_states,
               i - begin, queries);
      }
      // F transposed: left and right change places.
      Apply(At(r.decay, head, i), r.decay.element_stride,
            kRankOne ? At(r.right, head, i) : nullptr, r.right.element_stride,
            kRankOne ? At(r.left, head, i) : nullptr, r.left.element_stride,
            work.num_states, queries);
      if (kDiagonal && i >= op.row_begin) {
        Insert(At(r.query, head, i), r.query.element_stride, work.num_states,
               i - begin, queries);
      }
    }
  }

  // The entries of a chunk of rows and a chunk of columns before it.
  template <typename T>
  static LIMPID_INLINE void Multiply(const Workspace<T>& work, int64_t chunk,
                                     int64_t column, T* out) {
    const StateAttention<T>& op = work.op;
    const int64_t length = op.recurrence.num_positions;
    const T* keys = work.keys.data() + column * work.num_states * kChunk;
    const int64_t first = chunk * kChunk;
    const int64_t begin = std::max(op.row_begin - first, int64_t{0});
    const int64_t end = std::min<int64_t>(op.row_end - first, kChunk);
    for (int64_t t = begin / kRows * kRows; t < end; t += kRows) {
      const T* queries = work.queries.data() + t;
      const bool whole = t >= begin && t + kRows <= end;
      for (int p = 0; p < kChunk; p += kPanel<T>) {
        const int64_t j = column * kChunk + p;
        if (whole) {
          TileProduct<kRows, kPanel<T>>(
              queries, kChunk, keys + p, kChunk, work.num_states,
              out + (first + t - op.row_begin) * length + j, length);
          continue;
        }
        alignas(64) T tile[kRows * kPanel<T>];
        TileProduct<kRows, kPanel<T>>(queries, kChunk, keys + p, kChunk,
                                      work.num_states, tile, kPanel<T>);
        for (int64_t row = std::max(t, begin); row < std::min(t + kRows, end);
             ++row) {
          std::copy_n(tile + (row - t) * kPanel<T>, kPanel<T>,
                      out + (first + row - op.row_begin) * length + j);
        }
      }
    }
  }

  // Q to the other side of chunk `column`.
  template <typename T>
  static LIMPID_INLINE void CrossChunk(Workspace<T>& work, int64_t column) {
    const int64_t num_states = work.num_states;
    const T* decay = work.decays.data() + column * num_states;
    T* __restrict queries = work.queries.data();
    if constexpr (!kRankOne) {
      for (int64_t n = 0; n < num_states; ++n) {
        const T decay_n = decay[n];
        for (int w = 0; w < kChunk; ++w) queries[n * kChunk + w] *= decay_n;
      }
      return;
    }
    const T* lefts = work.lefts.data() + column * num_states * kChunk;
    const T* rights = work.rights.data() + column * kChunk * work.padded_states;
    T* projected = work.projected.data();
    for (int p = 0; p < kChunk; p += kPanel<T>) {
      for (int m = 0; m < kChunk; m += kRows) {
        TileProduct<kRows, kPanel<T>>(lefts + m, kChunk, queries + p, kChunk,
                                      num_states, projected + m * kChunk + p,
                                      kChunk);
      }
      for (int64_t n = 0; n < num_states; n += kRows) {
        alignas(64) T sum[kRows * kPanel<T>];
        TileProduct<kRows, kPanel<T>>(rights + n, work.padded_states,
                                      projected + p, kChunk, kChunk, sum,
                                      kPanel<T>);
        for (int64_t row = n; row < std::min(n + kRows, num_states); ++row) {
          const T decay_n = decay[row];
          const T* added = sum + (row - n) * kPanel<T>;
          T* __restrict query = queries + row * kChunk + p;
          for (int w = 0; w < kPanel<T>; ++w) {
            query[w] = decay_n * query[w] + added[w];
          }
        }
      }
    }
  }
};

template <bool kRankOne, bool kDiagonal>
struct ChunkedKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(Workspace<T>* const& work) {
    const StateAttention<T>& op = work->op;
    const int64_t plane =
        (op.row_end - op.row_begin) * op.recurrence.num_positions;
    for (int64_t h = op.head_begin; h < op.head_end; ++h) {
      const HeadOf head(op.recurrence,
                        op.sequence * op.recurrence.num_heads + h);
      Chunked<kBytes, kRankOne, kDiagonal>::Head(
          *work, head, op.out + (h - op.head_begin) * plane);
    }
  }
};

template <bool kRankOne, bool kDiagonal, typename T>
void Attend(const StateAttention<T>& op) {
  if (op.row_end - op.row_begin <= kMaxRowsBackwards) {
    DispatchSimd<T, BackwardsKernel<kRankOne, kDiagonal>>(op);
    return;
  }
  Workspace<T> work(op);
  DispatchSimd<T, ChunkedKernel<kRankOne, kDiagonal>>(&work);
}

}  // namespace

template <typename T>
absl::Status Run(const StateAttention<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  if (op.head_begin == op.head_end || op.row_begin == op.row_end) {
    return absl::OkStatus();
  }
  const FlushDenormals flush;
  const bool rank_one = op.recurrence.left.data != nullptr;
  const bool diagonal = op.recurrence.diagonal.data != nullptr;
  if (rank_one && diagonal) {
    Attend<true, true>(op);
  } else if (rank_one) {
    Attend<true, false>(op);
  } else if (diagonal) {
    Attend<false, true>(op);
  } else {
    Attend<false, false>(op);
  }
  return absl::OkStatus();
}

template absl::Status Run(const StateAttention<float>&);
template absl::Status Run(const StateAttention<double>&);

}  // namespace limpid::kernels::cpu
