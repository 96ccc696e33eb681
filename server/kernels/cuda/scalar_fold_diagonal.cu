// SPDX-License-Identifier: Apache-2.0
//
// The diagonal parts of ScalarAttentionFold, and the factors of all blocks.
//
// Positions of a block are cut into cells of kCell. The entries of a cell's
// rows in its own columns, which begin kShift before it, are made row by row:
// every row decays what came before it. All others in the triangle are in
// squares of 1, 2, 4 and 8 cells, whose rows are the right half of a range of
// positions and whose columns are the left half. They are products of factors
// as those of tiles are, which are decayed to the middle of the range; so at
// each of these levels a position has one factor, of its row or of its column.
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/scalar_fold.h"

namespace limpid::kernels::cuda {
namespace {

using Op = ScalarAttentionFold<float>;

constexpr int kLevels = 4;
static_assert(1 << kLevels == kCells);
static_assert(kScalarThreads == kScalarChannels * kCells);
// Columns of a cell's rows, with kShift in front.
constexpr int kColumns = kCell + kShift;
// Of a cell's rows and columns: row r has r + kShift + 1 of them.
constexpr int kNearEntries = kCell * (kCell + 1) / 2 + kCell * kShift;
constexpr int kNearGroups = 4;
static_assert(kNearEntries <= kNearGroups * kScalarChannels);

__host__ __device__ constexpr int FirstNearEntry(int r) {
  return r * (r + 1) / 2 + r * kShift;
}

struct DiagonalMemory {
  // By level, channel and position.
  float factors[kLevels][kScalarChannels][kRowStride];
  // Of a cell: decay through it, and the sum of its columns and values.
  float through[kScalarChannels][kCells + 1];
  float sums[kScalarChannels][kCells + 1];
};

// A cell of one channel, with kShift in front where there are columns. What is
// outside of the sequence gives nothing and decays nothing.
struct CellInputs {
  float key[kColumns], decay[kColumns], value[kColumns];
  float query[kCell], diagonal[kCell];
};

// Numbers of one channel, position after position.
class Positions {
 public:
  __device__ Positions(const float* data, int64_t stride)
      : data_(data), stride_(stride) {}
  __device__ Positions(const HeadOperand<float>& operand, int64_t sequence,
                       int64_t position, int64_t head)
      : Positions(operand.data == nullptr
                      ? nullptr
                      : operand.data + sequence * operand.sequence_stride +
                            position * operand.position_stride +
                            head * operand.head_stride,
                  operand.position_stride) {}

  // One position on; the number there, if it is to be read.
  __device__ float Next(bool exists, float otherwise) {
    const float number = exists ? __ldg(data_) : otherwise;
    data_ += stride_;
    return number;
  }

 private:
  const float* data_;
  const int64_t stride_;
};

__device__ CellInputs LoadCell(const Op& op, int64_t first, int64_t c,
                               bool active) {
  const StateRecurrence<float>& recurrence = op.recurrence;
  const int64_t before = first - kShift;
  // The columns [from, to) are there.
  const int from = static_cast<int>(max(-before, int64_t{0}));
  const int to = active
                     ? static_cast<int>(min(recurrence.num_positions - before,
                                            int64_t{kColumns}))
                     : 0;
  const auto exists = [&](int x) { return x >= from && x < to; };
  CellInputs in;
  Positions keys(recurrence.key, op.sequence, before, c);
  Positions decays(recurrence.decay, op.sequence, before, c);
  Positions values(op.value + before * op.value_stride + c, op.value_stride);
  Positions queries(recurrence.query, op.sequence, first, c);
  Positions diagonals(recurrence.diagonal, op.sequence, first, c);
  const bool products = op.product != nullptr;
  const bool diagonal = recurrence.diagonal.data != nullptr;
#pragma unroll
  for (int x = 0; x < kColumns; ++x) {
    in.key[x] = keys.Next(exists(x), 0);
    in.decay[x] = decays.Next(exists(x), 1);
    in.value[x] = values.Next(products && exists(x), 0);
    if (x < kShift) continue;
    in.query[x - kShift] = queries.Next(exists(x), 0);
    in.diagonal[x - kShift] = diagonals.Next(diagonal && exists(x), 0);
  }
  if (op.source_scale != nullptr) {
    Positions scales(op.source_scale + before * op.source_stride + c,
                     op.source_stride);
#pragma unroll
    for (int x = 0; x < kColumns; ++x) {
      const float scale = scales.Next(exists(x), 0);
      in.key[x] *= scale;
      if (x >= kShift) in.diagonal[x - kShift] *= scale;
    }
  }
  if (op.row_scale != nullptr) {
    Positions scales(op.row_scale + first * op.row_stride + c, op.row_stride);
#pragma unroll
    for (int r = 0; r < kCell; ++r) {
      const float scale = scales.Next(exists(r + kShift), 0);
      in.query[r] *= scale;
      in.diagonal[r] *= scale;
    }
  }
  return in;
}

// Joins numbers of the lanes whose kScalarChannels channels are neighbours;
// returns the one at the lane's place among them.
template <ChannelFold kFold>
__device__ float JoinLanes(float (&numbers)[kScalarChannels]) {
#pragma unroll
  for (int half = kScalarChannels / 2; half > 0; half /= 2) {
    const bool upper = threadIdx.x & half;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      // Both are read: numbers that are chosen by address are in memory.
      const float low = numbers[i], high = numbers[i + half];
      const float kept = upper ? high : low, given = upper ? low : high;
      numbers[i] =
          Joined<kFold>(kept, __shfl_xor_sync(0xffffffff, given, half));
    }
  }
  return numbers[0];
}

// The entries of a cell's rows and columns, joined over channels: a lane gets
// every kScalarChannels-th of them. products[r] is what they give to row r.
template <ChannelFold kFold, bool kOwnDecay>
__device__ void FoldNear(const CellInputs& in, const float (&taps)[kTaps],
                         float weight, bool active, float (&near)[kNearGroups],
                         float (&products)[kCell]) {
  float state[kColumns] = {};
  // What is in front gives to its columns.
  float run = 1;
  float keys[kShift];
#pragma unroll
  for (int x = kShift - 1; x >= 0; --x) {
    keys[x] = in.key[x] * run;
    run *= in.decay[x];
#pragma unroll
    for (int d = 0; x + d < kShift; ++d) state[x] += taps[d] * keys[x + d];
  }
  float numbers[kScalarChannels];
#pragma unroll
  for (int r = 0; r < kCell; ++r) {
    const float key = in.key[r + kShift], decay = in.decay[r + kShift];
    const float direct = in.diagonal[r];
    products[r] = 0;
#pragma unroll
    for (int x = 0; x <= r + kShift; ++x) {
      // How far the row's own position is to the right of the column.
      const int here = r + kShift - x;
      float entry;
      if (kOwnDecay) {
        state[x] *= decay;
        if (here < kTaps) state[x] += taps[here] * key;
        entry = in.query[r] * state[x];
      } else {
        entry = in.query[r] * state[x];
        state[x] *= decay;
        if (here < kTaps) {
          entry += taps[here] * direct;
          state[x] += taps[here] * key;
        }
      }
      products[r] += entry * in.value[x];
      const int at = FirstNearEntry(r) + x;
      numbers[at % kScalarChannels] =
          active ? Folded<kFold>(EmptyFold<kFold>(), entry, weight)
                 : EmptyFold<kFold>();
      if (at + 1 == kNearEntries) {
#pragma unroll
        for (int i = kNearEntries; i < kNearGroups * kScalarChannels; ++i) {
          numbers[i % kScalarChannels] = EmptyFold<kFold>();
        }
      }
      if (at + 1 == kNearEntries || (at + 1) % kScalarChannels == 0) {
        float& sum = near[at / kScalarChannels];
        sum = Joined<kFold>(sum, JoinLanes<kFold>(numbers));
      }
    }
  }
}

// The factors of a cell, decayed to its borders.
struct CellFactors {
  float query[kCell], key[kCell];
  float through;  // decay through the cell
  float sum;      // of its columns and values
};

template <bool kOwnDecay>
__device__ CellFactors FactorsOf(const CellInputs& in,
                                 const float (&taps)[kTaps]) {
  CellFactors out;
  float run = 1;
  float after[kShift] = {};
  out.sum = 0;
#pragma unroll
  for (int w = kColumns - 1; w >= 0; --w) {
    const float key = in.key[w] * run;
    run *= in.decay[w];
    if (w == kShift) out.through = run;
    if (w < kCell) {
      float column = taps[0] * key;
#pragma unroll
      for (int d = 1; d < kTaps; ++d) column += taps[d] * after[d - 1];
      out.key[w] = column;
      out.sum += column * in.value[w];
    }
#pragma unroll
    for (int d = kShift - 1; d > 0; --d) after[d] = after[d - 1];
    after[0] = key;
  }
  run = 1;
#pragma unroll
  for (int r = 0; r < kCell; ++r) {
    if (kOwnDecay) run *= in.decay[r + kShift];
    out.query[r] = in.query[r] * run;
    if (!kOwnDecay) run *= in.decay[r + kShift];
  }
  return out;
}

// Where a thread's entries in the squares are: the rows of a cell and half of
// the columns of one.
struct SquarePlace {
  int level = 0, row = 0, column = 0;
  bool exists = false;
};

__device__ SquarePlace PlaceInSquares(int unit) {
  SquarePlace place;
  for (int level = kLevels - 1; level >= 0; --level) {
    const int cells = 1 << level, halves = 2 * cells;
    // In a range, and in all of them.
    const int in_range = cells * halves, all = kCells / 2 * halves;
    if (unit < all) {
      const int left = unit / in_range * 2 * cells;
      const int at = unit % in_range;
      place.level = level;
      place.row = (left + cells + at / halves) * kCell;
      place.column = left * kCell + at % halves * (kCell / 2);
      place.exists = true;
      return place;
    }
    unit -= all;
  }
  return place;
}

// A thread is a channel and a cell where factors are made, and has a cell of
// rows by half a cell of columns where they are multiplied.
template <ChannelFold kFold, bool kOwnDecay>
__global__ void __launch_bounds__(kScalarThreads, 2)
    FoldDiagonal(Op op, ScalarGroup group) {
  __shared__ __align__(16) DiagonalMemory shared;
  const int k = threadIdx.x % kScalarChannels;
  const int cell = threadIdx.x / kScalarChannels;
  const int block = blockIdx.x, split = blockIdx.y;
  const int begin = split * group.diagonal_splits.channels;
  const int end =
      min(begin + group.diagonal_splits.channels, group.num_channels);
  const int64_t position = int64_t{block} * kTile + cell * kCell;
  const SquarePlace place = PlaceInSquares(threadIdx.x);
  float near[kNearGroups];
#pragma unroll
  for (float& sum : near) sum = EmptyFold<kFold>();
  float sums[kCell][kCell / 2];
#pragma unroll
  for (int r = 0; r < kCell; ++r) {
#pragma unroll
    for (float& sum : sums[r]) sum = EmptyFold<kFold>();
  }

  for (int first = begin; first < end; first += kScalarChannels) {
    const bool active = first + k < end;
    const int64_t channel = first + k;
    const int64_t c = group.channel_begin + channel;
    float taps[kTaps] = {}, weight = 0;
    if (active) {
      LoadTaps(op.conv_weight, op.conv_width, c, taps);
      if (kFold == ChannelFold::kWeightedSumAbs) weight = op.weight[c];
    }
    const CellInputs in = LoadCell(op, position, c, active);
    const CellFactors own = FactorsOf<kOwnDecay>(in, taps);
    shared.through[k][cell] = own.through;
    shared.sums[k][cell] = own.sum;
    float products[kCell];
    FoldNear<kFold, kOwnDecay>(in, taps, weight, active, near, products);
    // Nobody reads the factors of the channels before any more.
    __syncthreads();

    // Decays from the begin of the cell's half of a range to the cell, and from
    // there to the half's end.
    float before = 1, after = 1;
#pragma unroll
    for (int level = 0; level < kLevels; ++level) {
      const int cells = 1 << level;
      const bool right = cell & cells;
      float* const to = shared.factors[level][k] + cell * kCell;
#pragma unroll
      for (int x = 0; x < kCell; x += 4) {
        const auto factor = [&](int at) {
          return right ? FoldedFactor<kFold>(own.query[at] * before, weight)
                       : FoldedFactor<kFold>(own.key[at] * after);
        };
        *reinterpret_cast<float4*>(to + x) = {factor(x), factor(x + 1),
                                              factor(x + 2), factor(x + 3)};
      }
      const int other = (cell / cells ^ 1) * cells;
      float decay = 1;
#pragma unroll
      for (int i = 0; i < cells; ++i) decay *= shared.through[k][other + i];
      (right ? before : after) *= decay;
    }
    const int64_t factors_at = position * group.stride + channel;
    float* queries = group.queries + factors_at;
    float* keys = group.keys + factors_at;
#pragma unroll
    for (int x = 0; x < kCell; ++x) {
      *queries = own.query[x] * before;
      *keys = own.key[x] * after;
      queries += group.stride;
      keys += group.stride;
    }
    // Of the cells before.
    float carried = 0;
#pragma unroll
    for (int i = 0; i < kCells - 1; ++i) {
      if (i < cell) {
        carried = shared.through[k][i] * carried + shared.sums[k][i];
      }
    }
    if (cell == kCells - 1) {
      const int64_t at = block * group.stride + channel;
      group.through[at] = before * own.through;
      group.sums[at] = own.through * carried + own.sum;
    }
    if (op.product != nullptr && active) {
      const int64_t channels = op.recurrence.num_heads;
      const int64_t rows = op.recurrence.num_positions - position;
      float* product = op.product + position * channels + c;
#pragma unroll
      for (int r = 0; r < kCell; ++r) {
        if (r < rows) *product = products[r] + own.query[r] * carried;
        product += channels;
      }
    }
    __syncthreads();

    if (!place.exists) continue;
    const int count = min(kScalarChannels, end - first);
#pragma unroll 4
    for (int channel = 0; channel < kScalarChannels; ++channel) {
      // Factors of zero are no entries of a maximum.
      if (!kFoldsFactors<kFold> && channel >= count) break;
      const float* const from = shared.factors[place.level][channel];
      const float4 low = QuadAt(from + place.row);
      const float4 high = QuadAt(from + place.row + 4);
      const float4 key = QuadAt(from + place.column);
      const float query[kCell] = {low.x,  low.y,  low.z,  low.w,
                                  high.x, high.y, high.z, high.w};
#pragma unroll
      for (int r = 0; r < kCell; ++r) {
        sums[r][0] = FoldedProduct<kFold>(sums[r][0], query[r], key.x);
        sums[r][1] = FoldedProduct<kFold>(sums[r][1], query[r], key.y);
        sums[r][2] = FoldedProduct<kFold>(sums[r][2], query[r], key.z);
        sums[r][3] = FoldedProduct<kFold>(sums[r][3], query[r], key.w);
      }
    }
  }

  float* const out =
      group.diagonals +
      (int64_t{split} * group.num_blocks + block) * kTile * kDiagonalStride;
  if (place.exists) {
#pragma unroll
    for (int r = 0; r < kCell; ++r) {
      *reinterpret_cast<float4*>(out + (place.row + r) * kDiagonalStride +
                                 place.column) = {sums[r][0], sums[r][1],
                                                  sums[r][2], sums[r][3]};
    }
  }
#pragma unroll
  for (int i = 0; i < kNearGroups; ++i) {
    const int at = i * kScalarChannels + k;
    if (at >= kNearEntries) break;
    int r = 0;
    while (r + 1 < kCell && FirstNearEntry(r + 1) <= at) ++r;
    out[(cell * kCell + r) * kDiagonalStride + cell * kCell + at -
        FirstNearEntry(r)] = near[i];
  }
}

template <ChannelFold kFold, bool kOwnDecay>
void Launch(const Op& op, const ScalarGroup& group, cudaStream_t stream) {
  const dim3 grid(group.num_blocks, group.diagonal_splits.count);
  FoldDiagonal<kFold, kOwnDecay>
      <<<grid, kScalarThreads, 0, stream>>>(op, group);
}

}  // namespace

absl::Status FoldScalarDiagonals(const Op& op, const ScalarGroup& group,
                                 cudaStream_t stream) {
  return WithFold(op.fold, [&]<ChannelFold kFold>() {
    if (op.recurrence.diagonal.data == nullptr) {
      Launch<kFold, true>(op, group, stream);
    } else {
      Launch<kFold, false>(op, group, stream);
    }
    return CheckLaunch("ScalarAttentionFold");
  });
}

}  // namespace limpid::kernels::cuda
