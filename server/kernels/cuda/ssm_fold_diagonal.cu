// SPDX-License-Identifier: Apache-2.0
//
// The parts of SsmAttentionFold at the diagonal: rows of one block of kTile
// against the columns from kShift before it up to the diagonal.
//
// A column has met all of its taps kShift positions later, at row w for the
// column w of the part, and from there on it is a key of a plain recurrence:
//   X_w[n] = sum_d taps_d key_{w+d}[n] exp(a_n sum of delta from w + d to w +
//   3), alpha[r, w] = sum_n row_scale_r c_r[n] exp(a_n sum of delta from w to
//   r)
//                 X_w[n],   r >= w.
// That triangle is halved again and again: the square below the diagonal of a
// group of 128, 64, 32 and 16 rows is a product of factors relative to its
// upper border, on tensor cores, down to triangles of 8 rows, which go row by
// row. Three entries per row, where taps are still to come, stand by
// themselves.
//
// A block of threads has a block of rows and some channels at a time, in slots.
// Two warps have the upper and the lower 64 rows of a channel (ssm_fold_span.h)
// and wait for nobody; four have the square between these, of the channels
// before. In a short block, whose lower span is an eight at most, all of those
// warps have upper spans, of twice as many channels at a time; one of the four
// has the eights behind, a channel in every quad of lanes, and two the squares.
#include <cstdint>

#include "server/kernels/cuda/async_copy.h"
#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/mma.h"
#include "server/kernels/cuda/ssm_fold.h"
#include "server/kernels/cuda/ssm_fold_fragments.h"
#include "server/kernels/cuda/ssm_fold_span.h"
#include "server/kernels/cuda/warp.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

using Op = SsmAttentionFold<float>;

constexpr int kSpanWarps = 8;
constexpr int kSlots = kSpanWarps / 2;  // channels at a time
constexpr int kShortSlots = kSpanWarps;
constexpr int kSquareWarps = kSpan / 16;
constexpr int kThreads = 32 * (kSpanWarps + kSquareWarps);
// Rows of a short block, and its positions from kShift before it.
constexpr int kShortRows = kSpan + kEight;
constexpr int kShortDiagonal = kShortRows + kShift;
static_assert(32 / 4 == kShortSlots, "a channel in every quad of lanes");
// Inputs of this round's channels, of the next one's, and those that the
// square's warps still read.
constexpr int kInputRounds = 3;

using Part = float[kTile][kDiagonalStride];

struct alignas(16) Slot {
  ChannelInputs inputs[kInputRounds];
  SquareInputs squares[2];
};

struct alignas(16) DiagonalMemory {
  BlockStates states;
  float bounds[kThreads / 32];
  union {
    SpanMemory spans[kSpanWarps + 1];  // and of the eights behind
    Part part;                         // when the work is done
  };
  Slot slots[kSlots];  // or kShortSlots

  static constexpr int BytesFor(int slots) {
    return static_cast<int>(sizeof(DiagonalMemory) +
                            (slots - kSlots) * sizeof(Slot));
  }
};

// What a block of threads makes.
struct DiagonalPart {
  int index;  // among the parts
  int block, rows;
  int channel_begin, channel_end;
  bool is_short;

  __device__ DiagonalPart(const Op& op, const FoldGroup& group, int index,
                          bool can_be_short)
      : index(index) {
    const int last = group.num_blocks - 1;
    block = min(index / group.diagonal_splits, last);
    rows = static_cast<int>(min(int64_t{kTile}, op.attention.ssm.num_positions -
                                                    int64_t{block} * kTile));
    is_short = can_be_short && block == last;
    const int split = index - group.FirstDiagonalPartOf(block);
    const int splits = group.DiagonalSplitsOf(block);
    // Whole rounds: loads of channels that begin within a sector of memory are
    // slower by an eighth of all.
    const int units = (group.num_channels + slots() - 1) / slots();
    channel_begin = units * split / splits * slots();
    channel_end =
        min(units * (split + 1) / splits * slots(), group.num_channels);
  }
  __device__ int slots() const { return is_short ? kShortSlots : kSlots; }
  __device__ int rounds() const {
    return (channel_end - channel_begin + slots() - 1) / slots();
  }
};

__device__ void LoadStates(const SelectiveSsm<float>& ssm, int64_t begin,
                           BlockStates& out) {
  const int num_states = static_cast<int>(ssm.state_size);
  for (int at = threadIdx.x; at < kDiagonal * kFoldStates; at += kThreads) {
    const int x = at / kFoldStates, n = at % kFoldStates;
    const int64_t p = begin - kShift + x;
    const bool exists = p >= 0 && p < ssm.num_positions && n < num_states;
    reinterpret_cast<float*>(out.b[Padded(x)])[n] =
        exists ? ssm.b[p * ssm.b_stride + n] : 0;
    if (x >= kShift) {
      reinterpret_cast<float*>(out.c[Padded(x - kShift)])[n] =
          exists ? ssm.c[p * ssm.c_stride + n] : 0;
    }
  }
}

// Begins to load what the channels of a round need, by the square's warps;
// neighbours are channels.
template <bool kProducts>
__device__ void LoadInputs(const Op& op, const FoldGroup& group,
                           const DiagonalPart& part, int round,
                           Slot* const slots) {
  const SsmAttention<float>& attention = op.attention;
  const SelectiveSsm<float>& ssm = attention.ssm;
  const int64_t begin = int64_t{part.block} * kTile - kShift;
  const int num_slots = part.slots();
  const int channel = part.channel_begin + round * num_slots;
  const int count = min(num_slots, part.channel_end - channel);
  const int positions = part.is_short ? kShortDiagonal : kDiagonal;
  const int thread = static_cast<int>(threadIdx.x) - 32 * kSpanWarps;
  for (int at = thread; at < positions * num_slots; at += 32 * kSquareWarps) {
    // Without a division.
    const int slot = at & (num_slots - 1);
    const int x = part.is_short ? at / kShortSlots : at / kSlots;
    if (slot >= count) continue;
    ChannelInputs& out = slots[slot].inputs[round % kInputRounds];
    const int64_t p = begin + x;
    const bool exists = p >= 0 && p < ssm.num_positions;
    const int64_t from = exists ? p : 0;
    const int64_t c = group.channel_begin + channel + slot;
    float* const to = reinterpret_cast<float*>(&out.positions[Padded(x)]);
    CopyWordAsync(to, ssm.delta + from * ssm.delta_stride + c, exists);
    if (attention.source_scale != nullptr) {
      CopyWordAsync(to + 1,
                    attention.source_scale + from * attention.source_stride + c,
                    exists);
    } else {
      to[1] = exists ? 1.0f : 0.0f;
    }
    if (attention.row_scale != nullptr) {
      CopyWordAsync(to + 2,
                    attention.row_scale + from * attention.row_stride + c,
                    exists);
    } else {
      to[2] = exists ? 1.0f : 0.0f;
    }
    if (kProducts) {
      CopyWordAsync(to + 3, op.value + from * op.value_stride + c, exists);
    }
  }
  constexpr int kQuads = (kFoldStates + kTaps + 4) / 4;
  static_assert(kQuads * kShortSlots <= 32 * kSquareWarps);
  const int slot = thread / kQuads, quad = thread % kQuads;
  if (slot < count) {
    CopyQuadAsync(
        slots[slot].inputs[round % kInputRounds].rate + 4 * quad,
        group.FactorsAt(channel + slot, part.block).columns.rate + 4 * quad);
  }
}

// A warp's part of the square between the spans of a block: 16 rows of the
// lower by all columns of the upper one.
template <ChannelFold kFold, bool kProducts>
struct SquarePart {
  float sums[kEights][4];

  // Adds a channel; `products` of the lower span's rows.
  __device__ __forceinline__ void Add(const BlockStates& states,
                                      const ChannelInputs& in,
                                      const SquareInputs& square, int warp,
                                      float scale, float* products) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const float4 four = reinterpret_cast<const float4*>(in.rate)[t];
    const float rate[4] = {four.x, four.y, four.z, four.w};
    Queries queries;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = 16 * warp + 8 * h + g;
      const int eight = kEights + 2 * warp + h;
      const float sum = square.sums[row];
      const float whole = in.RowScale(eight, g) * in.unit * scale;
      const float4 c = states.c[Padded(eight, g)][t];
      const float of_row[4] = {c.x, c.y, c.z, c.w};
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        queries.of[h][n] = of_row[n] * whole * ExpOfLog2(rate[n] * sum);
      }
    }
    const LeftHalves left = queries.Halves();
    float given[2] = {};
    if constexpr (kProducts) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        given[h] = Dot(queries.of[h], square.of_bias[t]);
      }
    }
#pragma unroll
    for (int x = 0; x < kEights; ++x) {
      float entries[4];
      MultiplyPairs(entries, left, LoadKeys(square.keys[x].keys, lane));
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sums[x][e] = Folded<kFold>(sums[x][e], entries[e], in.weight);
      }
      if constexpr (kProducts) {
        const float2 value = {in.Value(x, 2 * t), in.Value(x, 2 * t + 1)};
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          given[h] = AddProducts(given[h], entries[2 * h], value.x,
                                 entries[2 * h + 1], value.y);
        }
      }
    }
    if constexpr (kProducts) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        given[h] += __shfl_xor_sync(kAllLanes, given[h], 1);
        given[h] += __shfl_xor_sync(kAllLanes, given[h], 2);
        const int row = 16 * warp + 8 * h + g;
        if (t == 0) products[row] = given[h] / scale + square.products[row];
      }
    }
  }
};

// What the warps of a block share, and their roles.
template <ChannelFold kFold, bool kProducts>
class DiagonalWork {
 public:
  __device__ DiagonalWork(const Op& op, const FoldGroup& group,
                          const DiagonalPart& part, float scale,
                          DiagonalMemory& shared)
      : op_(op), group_(group), part_(part), scale_(scale), shared_(shared) {}

  // By one of the first kSpanWarps.
  __device__ __forceinline__ void Spans(int warp) {
    const int lane = threadIdx.x % 32;
    const int slot = part_.is_short ? warp : warp / 2;
    const int first = part_.is_short ? 0 : warp % 2 * kSpan;
    SpanSums sums;
    sums.ForEach(lane,
                 [](float& sum, int, int, bool) { sum = EmptyFold<kFold>(); });
    // One barrier per round: what it makes has another place in the next.
    for (int round = 0; round <= part_.rounds(); ++round) {
      __syncthreads();
      const int channel = ChannelOf(round, slot);
      if (channel >= part_.channel_end || first >= part_.rows) continue;
      SpanWork<kFold, kProducts> work(shared_.states, InputsOf(round, slot),
                                      first, scale_, shared_.spans[warp], sums);
      work.Run(part_.block + 1 < group_.num_blocks, FactorsOf(channel),
               SquareOf(round, slot), ProductsOf(channel));
    }
    // Slots one after the other.
    for (int turn = 0; turn < part_.slots(); ++turn) {
      __syncthreads();
      if (turn != slot) continue;
      sums.ForEach(lane, [&](float sum, int row, int column, bool is_scaled) {
        float& out = shared_.part[first + row][first + column];
        if (is_scaled) sum *= factor();
        out = turn == 0 ? sum : Joined<kFold>(out, sum);
      });
    }
  }

  // By the other warps: the square between the spans.
  __device__ __forceinline__ void Squares(int warp) {
    // Rows of warps, and turns of the channels.
    const int rows = part_.is_short ? 0 : warp;
    const int slot_begin = part_.is_short ? warp * kSlots : 0;
    SquarePart<kFold, kProducts> square;
#pragma unroll
    for (int x = 0; x < kEights; ++x) {
#pragma unroll
      for (int e = 0; e < 4; ++e) square.sums[x][e] = EmptyFold<kFold>();
    }
    const bool has_rows = kSpan + 16 * rows < part_.rows;
    for (int round = 0; round <= part_.rounds(); ++round) {
      BeginRound(round);
      if (round == 0 || !has_rows) continue;
      for (int slot = slot_begin; slot < slot_begin + kSlots; ++slot) {
        const int channel = ChannelOf(round - 1, slot);
        if (channel >= part_.channel_end) break;
        square.Add(shared_.states, InputsOf(round - 1, slot),
                   SquareOf(round - 1, slot), rows, scale_,
                   ProductsOf(channel) + kSpan);
      }
    }
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int turn = 0; turn < part_.slots(); ++turn) {
      __syncthreads();
      if (turn * kSlots != slot_begin) continue;
#pragma unroll
      for (int x = 0; x < kEights; ++x) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float& out = shared_.part[kSpan + 16 * rows + g + e / 2 * 8]
                                   [8 * x + 2 * t + e % 2];
          const float sum = square.sums[x][e] * factor();
          out = turn == 0 ? sum : Joined<kFold>(out, sum);
        }
      }
    }
  }

  // By one warp of a short block: the eight behind the span, channel m by lane
  // 4 m + t.
  __device__ __forceinline__ void EightsBehind() {
    const int lane = threadIdx.x % 32, m = lane / 4, t = lane % 4;
    SpanMemory& memory = shared_.spans[kSpanWarps];
    float sums[kEntriesOfLane];
#pragma unroll
    for (int k = 0; k < kEntriesOfLane; ++k) sums[k] = EmptyFold<kFold>();
    const bool has_rows = kSpan < part_.rows;
    for (int round = 0; round <= part_.rounds(); ++round) {
      BeginRound(round);
      if (round == part_.rounds() || !has_rows) continue;
      const ChannelInputs& in = InputsOf(round, m);
      EightWalk<kFold, kProducts> walk;
      __syncwarp();
      walk.Down(shared_.states, in, kEights, memory, sums);
      float of_span = 0;
#pragma unroll
      for (int k = 0; k < kSpan; k += 4) {
        of_span += in.At(0, k + t + kShift).delta;
      }
      of_span += __shfl_xor_sync(kAllLanes, of_span, 1);
      of_span += __shfl_xor_sync(kAllLanes, of_span, 2);
      __syncwarp();
      RowFactors& rows = FactorsOf(ChannelOf(round, m)).rows;
      SquareInputs& square = SquareOf(round, m);
#pragma unroll
      for (int i = t; i < kEight; i += 4) {
        const float sum = memory.sums[kEight * m + i];
        rows.rows[kSpan + i] = {of_span + sum, in.RowScale(kEights, i)};
        square.sums[i] = sum;
        if (kProducts) square.products[i] = memory.products[kEight * m + i];
      }
    }
    // Channels are lanes.
#pragma unroll
    for (int k = 0; k < kEntriesOfLane; ++k) {
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) {
        sums[k] =
            Joined<kFold>(sums[k], __shfl_xor_sync(kAllLanes, sums[k], offset));
      }
    }
    for (int turn = 0; turn < part_.slots(); ++turn) {
      __syncthreads();
      if (turn > 0 || m > 0) continue;
#pragma unroll
      for (int k = 0; k < kEntriesOfLane; ++k) {
        const PlaceInEight place = PlaceOfEntry(4 * k + t);
        shared_.part[kSpan + place.row][kSpan + place.column] = sums[k];
      }
    }
  }

  // By a warp with nothing else to do than to load.
  __device__ void Load() {
    for (int round = 0; round <= part_.rounds(); ++round) BeginRound(round);
    for (int turn = 0; turn < part_.slots(); ++turn) __syncthreads();
  }

 private:
  // By those that load.
  __device__ __forceinline__ void BeginRound(int round) {
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    if (round + 1 >= part_.rounds()) return;
    LoadInputs<kProducts>(op_, group_, part_, round + 1, shared_.slots);
  }

  __device__ int ChannelOf(int round, int slot) const {
    return part_.channel_begin + round * part_.slots() + slot;
  }
  __device__ const ChannelInputs& InputsOf(int round, int slot) const {
    return shared_.slots[slot].inputs[round % kInputRounds];
  }
  __device__ SquareInputs& SquareOf(int round, int slot) const {
    return shared_.slots[slot].squares[round % 2];
  }
  __device__ BlockFactors& FactorsOf(int channel) const {
    return group_.FactorsAt(channel, part_.block);
  }
  __device__ float* ProductsOf(int channel) const {
    return kProducts ? group_.ProductsOf(channel, part_.block) : nullptr;
  }
  // Of squares, which are in units of 1 / S.
  __device__ float factor() const {
    const float unscale = 1 / scale_;
    return kFold == ChannelFold::kSumSquares ? unscale * unscale : unscale;
  }

  const Op& op_;
  const FoldGroup& group_;
  const DiagonalPart& part_;
  const float scale_;
  DiagonalMemory& shared_;
};

// What short blocks need makes others slower by 5 % if they have to carry it.
template <ChannelFold kFold, bool kProducts, bool kHasShort>
__global__ void __launch_bounds__(kThreads, 1)
    FoldDiagonal(Op op, FoldGroup group) {
  op = SequenceOf(op, blockIdx.z);
  group = SequenceOf(group, blockIdx.z);
  extern __shared__ __align__(16) unsigned char memory[];
  DiagonalMemory& shared = *reinterpret_cast<DiagonalMemory*>(memory);
  const int tid = threadIdx.x;
  const int lane = tid % 32, warp = WarpIndex();
  const DiagonalPart part(op, group, blockIdx.x, kHasShort);

  if (warp >= kSpanWarps) {
    LoadInputs<kProducts>(op, group, part, 0, shared.slots);
  }
  LoadStates(op.attention.ssm, int64_t{part.block} * kTile, shared.states);
  // S must fit the largest |Q K| of all channels; decays only make it smaller.
  float bound = 0;
  for (int channel = part.channel_begin + tid; channel < part.channel_end;
       channel += kThreads) {
    const BlockFactors& factors = group.FactorsAt(channel, part.block);
    bound = fmaxf(bound, factors.query_bound * factors.key_bound);
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    bound = fmaxf(bound, __shfl_xor_sync(kAllLanes, bound, offset));
  }
  if (lane == 0) shared.bounds[warp] = bound;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; ++w)
    bound = fmaxf(bound, shared.bounds[w]);

  DiagonalWork<kFold, kProducts> work(op, group, part,
                                      PowerOfTwoScale(bound, 26), shared);
  const int other = warp - kSpanWarps;
  if (other < 0) {
    work.Spans(warp);
  } else if (!part.is_short || other < kShortSlots / kSlots) {
    work.Squares(other);
  } else if (other == kShortSlots / kSlots) {
    work.EightsBehind();
  } else {
    work.Load();
  }
  __syncthreads();
  float* const out =
      group.diagonals + int64_t{part.index} * kTile * kDiagonalStride;
  for (int row = warp; row < part.rows; row += kThreads / 32) {
    for (int column = lane; column <= row + kShift; column += 32) {
      out[row * kDiagonalStride + column] = shared.part[row][column];
    }
  }
}

template <ChannelFold kFold, bool kProducts, bool kHasShort>
absl::Status Launch(const Op& op, const FoldGroup& group, cudaStream_t stream) {
  return LaunchWithSharedMemory(
      "SsmAttentionFold", FoldDiagonal<kFold, kProducts, kHasShort>,
      dim3(group.num_diagonal_parts(), 1, group.num_sequences), kThreads,
      DiagonalMemory::BytesFor(kHasShort ? kShortSlots : kSlots), stream, op,
      group);
}

// That a block of the current device can have; 0 where that is not known.
int SharedMemoryOfBlock() {
  int device = 0, bytes = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
                 cudaDeviceGetAttribute(&bytes,
                                        cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                        device) == cudaSuccess
             ? bytes
             : 0;
}

}  // namespace

bool DiagonalsFit() {
  return SharedMemoryOfBlock() >= DiagonalMemory::BytesFor(kSlots);
}

int ShortRows() {
  return SharedMemoryOfBlock() >= DiagonalMemory::BytesFor(kShortSlots)
             ? kShortRows
             : 0;
}

absl::Status FoldDiagonals(const Op& op, const FoldGroup& group,
                           cudaStream_t stream) {
  return WithFoldAndProducts(
      op.fold, group.products != nullptr,
      [&]<ChannelFold kFold, bool kProducts>() {
        return group.has_short_block
                   ? Launch<kFold, kProducts, true>(op, group, stream)
                   : Launch<kFold, kProducts, false>(op, group, stream);
      });
}

}  // namespace limpid::kernels::cuda
