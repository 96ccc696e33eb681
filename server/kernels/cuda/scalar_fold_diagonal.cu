// SPDX-License-Identifier: Apache-2.0
//
// The diagonal parts of ScalarAttentionFold. Positions are cut into cells of
// kCell, whose columns begin kShift before them, too. Between different cells
// the entries are products of factors again; within a cell, and for the kShift
// columns before the next one, every row decays what came before it. What the
// blocks before give to the products is added here.
#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/scalar_fold.h"

namespace limpid::kernels::cuda {
namespace {

using Op = ScalarAttentionFold<float>;

// Position x of an array with kShift in front is position x - kShift of the
// block; those outside of the sequence give nothing and decay nothing.
struct DiagonalMemory {
  float key[kScalarChannels][kRowStride];    // with kShift in front
  float decay[kScalarChannels][kRowStride];  // with kShift in front
  float value[kScalarChannels][kRowStride];  // with kShift in front
  float query[kScalarChannels][kRowStride];
  float diagonal[kScalarChannels][kRowStride];
  // Decayed to borders of cells.
  float cell_query[kScalarChannels][kRowStride];
  float cell_key[kScalarChannels][kRowStride];
  // Decay through a cell, and what is before it gives to the kShift columns
  // before it.
  float through[kScalarChannels][kCells + 1];
  float before[kScalarChannels][kCells][kShift];
  float taps[kScalarChannels][kTaps];
  float weight[kScalarChannels];
  float carried[kScalarChannels];  // of the blocks before
  // Of the products: sums of cell_key and value in a cell, what those of the
  // cells before give, and what the two threads that have a row's own cells do.
  float cell_sum[kScalarChannels][kCells];
  float cell_carried[kScalarChannels][kCells];
  float products[kScalarChannels][2][kTile];
};
static_assert(kRowStride >= kDiagonal);

__device__ void LoadInputs(const Op& op, int64_t begin, int64_t first,
                           int count, bool products, DiagonalMemory& shared) {
  const StateRecurrence<float>& recurrence = op.recurrence;
  for (int at = threadIdx.x; at < kScalarChannels * kDiagonal;
       at += kScalarThreads) {
    const int k = at % kScalarChannels, x = at / kScalarChannels;
    const int64_t c = first + k;
    const int64_t p = begin - kShift + x;
    const bool exists = k < count && p >= 0 && p < recurrence.num_positions;
    float key = 0, decay = 1, value = 0, query = 0, diagonal = 0;
    if (exists) {
      const float source =
          op.source_scale == nullptr
              ? 1.0f
              : __ldg(op.source_scale + p * op.source_stride + c);
      const float row = op.row_scale == nullptr
                            ? 1.0f
                            : __ldg(op.row_scale + p * op.row_stride + c);
      key = NumberAt(recurrence.key, op.sequence, p, c) * source;
      decay = NumberAt(recurrence.decay, op.sequence, p, c);
      query = NumberAt(recurrence.query, op.sequence, p, c) * row;
      if (recurrence.diagonal.data != nullptr) {
        diagonal =
            NumberAt(recurrence.diagonal, op.sequence, p, c) * source * row;
      }
      if (products) value = __ldg(op.value + p * op.value_stride + c);
    }
    shared.key[k][x] = key;
    shared.decay[k][x] = decay;
    shared.value[k][x] = value;
    if (x >= kShift) {
      shared.query[k][x - kShift] = query;
      shared.diagonal[k][x - kShift] = diagonal;
    }
  }
  if (threadIdx.x < count) {
    LoadTaps(op.conv_weight, op.conv_width, first + threadIdx.x,
             shared.taps[threadIdx.x]);
    if (op.weight != nullptr) {
      shared.weight[threadIdx.x] = op.weight[first + threadIdx.x];
    }
  }
}

// The factors of one cell of one channel.
__device__ void BuildCell(DiagonalMemory& shared, int k, int cell,
                          bool own_decay) {
  const int first = cell * kCell;
  const float(&taps)[kTaps] = shared.taps[k];
  float run = 1, sum = 0;
  float after[kShift] = {};
#pragma unroll
  for (int w = kCell + kShift - 1; w >= 0; --w) {
    const float key = shared.key[k][first + w] * run;
    float column = taps[0] * key;
#pragma unroll
    for (int d = 1; d < kTaps; ++d) column += taps[d] * after[d - 1];
#pragma unroll
    for (int d = kShift - 1; d > 0; --d) after[d] = after[d - 1];
    after[0] = key;
    run *= shared.decay[k][first + w];
    if (w == kShift) shared.through[k][cell] = run;
    if (w < kCell) {
      shared.cell_key[k][first + w] = column;
      sum += column * shared.value[k][first + w];
    } else if (cell + 1 < kCells) {
      shared.before[k][cell + 1][w - kCell] = column;
    }
  }
  shared.cell_sum[k][cell] = sum;
  if (cell == 0) {
    run = 1;
    float keys[kShift];
#pragma unroll
    for (int x = kShift - 1; x >= 0; --x) {
      keys[x] = shared.key[k][x] * run;
      run *= shared.decay[k][x];
      float column = 0;
#pragma unroll
      for (int d = 0; x + d < kShift; ++d) column += taps[d] * keys[x + d];
      shared.before[k][0][x] = column;
    }
  }
  run = 1;
#pragma unroll
  for (int r = 0; r < kCell; ++r) {
    const float decay = shared.decay[k][first + r + kShift];
    if (own_decay) run *= decay;
    shared.cell_query[k][first + r] = shared.query[k][first + r] * run;
    if (!own_decay) run *= decay;
  }
}

template <ChannelFold kFold, bool kProducts>
__global__ void __launch_bounds__(kScalarThreads, 2)
    FoldDiagonal(Op op, ScalarGroup group) {
  extern __shared__ __align__(16) unsigned char memory[];
  DiagonalMemory& shared = *reinterpret_cast<DiagonalMemory*>(memory);
  const int tid = threadIdx.x;
  const int block = blockIdx.x, split = blockIdx.y;
  const int begin = group.SplitBegin(split, group.diagonal_splits);
  const int end = group.SplitBegin(split + 1, group.diagonal_splits);
  const bool own_decay = op.recurrence.diagonal.data == nullptr;
  // Threads are rows of cells by columns of cells. The last row of cells has
  // one column more, which a thread above the diagonal takes.
  const bool extra = tid == kCells - 1;
  const int cell_row = extra ? kCells - 1 : tid / kCells;
  const int cell_column = extra ? kCells : tid % kCells;
  float sums[kCell][kCell];
#pragma unroll
  for (int r = 0; r < kCell; ++r) {
#pragma unroll
    for (int x = 0; x < kCell; ++x) sums[r][x] = EmptyFold<kFold>();
  }

  const int64_t channels = group.num_channels;
  const auto store_products = [&](int first, int count) {
    if (!kProducts) return;
    const int64_t rows = min(
        int64_t{kTile}, op.recurrence.num_positions - int64_t{block} * kTile);
    for (int at = tid; at < kScalarChannels * rows; at += kScalarThreads) {
      const int k = at % kScalarChannels, r = at / kScalarChannels;
      if (k >= count) continue;
      const int64_t i = int64_t{block} * kTile + r;
      float sum = shared.products[k][0][r] + shared.products[k][1][r];
      sum += shared.cell_query[k][r] * shared.cell_carried[k][r / kCell];
      sum += group.queries[i * channels + first + k] * shared.carried[k];
      op.product[i * op.recurrence.num_heads + group.channel_begin + first +
                 k] = sum;
    }
  };

  for (int first = begin; first < end; first += kScalarChannels) {
    const int count = min(kScalarChannels, end - first);
    __syncthreads();
    if (first > begin) {
      store_products(first - kScalarChannels, kScalarChannels);
      __syncthreads();
    }
    if (kProducts && tid < count) {
      float carried = 0;
      for (int b = 0; b < block; ++b) {
        const int64_t at = b * channels + first + tid;
        carried = group.through[at] * carried + group.sums[at];
      }
      shared.carried[tid] = carried;
    }
    LoadInputs(op, int64_t{block} * kTile, group.channel_begin + first, count,
               kProducts, shared);
    __syncthreads();
    BuildCell(shared, tid % kScalarChannels, tid / kScalarChannels, own_decay);
    __syncthreads();
    if (kProducts && tid < count) {
      float carried = 0;
      for (int cell = 0; cell < kCells; ++cell) {
        shared.cell_carried[tid][cell] = carried;
        carried =
            shared.through[tid][cell] * carried + shared.cell_sum[tid][cell];
      }
    }
    for (int k = 0; k < count; ++k) {
      const float weight =
          kFold == ChannelFold::kWeightedSumAbs ? shared.weight[k] : 1.0f;
      if (cell_column < cell_row) {
        float between = 1;
        for (int cell = cell_column + 1; cell < cell_row; ++cell) {
          between *= shared.through[k][cell];
        }
#pragma unroll
        for (int r = 0; r < kCell; ++r) {
          const float query =
              shared.cell_query[k][cell_row * kCell + r] * between;
#pragma unroll
          for (int x = 0; x < kCell; ++x) {
            const float key = shared.cell_key[k][cell_column * kCell + x];
            sums[r][x] = Folded<kFold>(sums[r][x], query * key, weight);
          }
        }
      } else if (cell_column <= cell_row + 1) {
        // Columns from kShift before the cell of rows, or before the next one.
        const bool next = cell_column > cell_row;
        float state[kCell] = {};
        if (!next) {
#pragma unroll
          for (int x = 0; x < kShift; ++x) {
            state[x] = shared.before[k][cell_row][x];
          }
        }
#pragma unroll
        for (int r = 0; r < kCell; ++r) {
          const int row = cell_row * kCell + r;
          const float key = shared.key[k][row + kShift];
          const float decay = shared.decay[k][row + kShift];
          const float query = shared.query[k][row];
          const float diagonal = shared.diagonal[k][row];
          float product = 0;
#pragma unroll
          for (int x = 0; x < kCell; ++x) {
            // How far the row's own position is to the right of the column.
            const int here = r + kShift - x, there = here - kCell;
            const float tap =
                next ? (there >= 0 && there < kTaps ? shared.taps[k][there & 3]
                                                    : 0.0f)
                     : (here >= 0 && here < kTaps ? shared.taps[k][here & 3]
                                                  : 0.0f);
            float entry;
            if (own_decay) {
              state[x] = state[x] * decay + tap * key;
              entry = query * state[x];
            } else {
              entry = query * state[x] + tap * diagonal;
              state[x] = state[x] * decay + tap * key;
            }
            sums[r][x] = Folded<kFold>(sums[r][x], entry, weight);
            // Columns past the last one of the block's values are above the
            // diagonal.
            if (kProducts && cell_column * kCell + x < kDiagonal) {
              product += entry * shared.value[k][cell_column * kCell + x];
            }
          }
          if (kProducts) shared.products[k][next][row] = product;
        }
      }
    }
  }
  __syncthreads();
  const int last =
      begin + (end - begin - 1) / kScalarChannels * kScalarChannels;
  store_products(last, end - last);

  float* const out =
      group.diagonals +
      (int64_t{split} * group.num_blocks + block) * kTile * kDiagonalStride;
#pragma unroll
  for (int r = 0; r < kCell; ++r) {
#pragma unroll
    for (int x = 0; x < kCell; ++x) {
      if (cell_column * kCell + x < kDiagonal) {
        out[(cell_row * kCell + r) * kDiagonalStride + cell_column * kCell +
            x] = sums[r][x];
      }
    }
  }
}

template <ChannelFold kFold, bool kProducts>
absl::Status Launch(const Op& op, const ScalarGroup& group,
                    cudaStream_t stream) {
  return LaunchWithSharedMemory(
      "ScalarAttentionFold", FoldDiagonal<kFold, kProducts>,
      dim3(group.num_blocks, group.diagonal_splits), kScalarThreads,
      sizeof(DiagonalMemory), stream, op, group);
}

}  // namespace

absl::Status FoldScalarDiagonals(const Op& op, const ScalarGroup& group,
                                 cudaStream_t stream) {
  return WithFoldAndProducts(
      op.fold, op.product != nullptr, [&]<ChannelFold kFold, bool kProducts>() {
        return Launch<kFold, kProducts>(op, group, stream);
      });
}

}  // namespace limpid::kernels::cuda
