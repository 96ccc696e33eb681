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
// A block of threads has a block of rows and some channels at a time. Two warps
// have the upper and the lower 64 rows of a channel (ssm_fold_span.h) and wait
// for nobody; four have the square between these, of the channels before.
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

// Channels at a time, in slots.
constexpr int kSlots = 4;
constexpr int kSpanWarps = 2 * kSlots;
constexpr int kSquareWarps = kSpan / 16;
constexpr int kThreads = 32 * (kSpanWarps + kSquareWarps);
// Inputs of this round's channels, of the next one's, and those that the
// square's warps still read.
constexpr int kInputRounds = 3;

struct WorkMemory {
  SpanMemory spans[kSpanWarps];
  SquareInputs squares[2][kSlots];
};
using Part = float[kTile][kDiagonalStride];

struct alignas(16) DiagonalMemory {
  BlockStates states;
  ChannelInputs inputs[kInputRounds][kSlots];
  float bounds[kThreads / 32];
  union {
    WorkMemory work;
    Part part;  // when the work is done
  };
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

// Begins to load what `count` channels need, by the square's warps; neighbours
// are channels.
template <bool kProducts>
__device__ void LoadInputs(const Op& op, const FoldGroup& group, int block,
                           int channel, int count,
                           ChannelInputs (&out)[kSlots]) {
  const SsmAttention<float>& attention = op.attention;
  const SelectiveSsm<float>& ssm = attention.ssm;
  const int64_t begin = int64_t{block} * kTile - kShift;
  const int thread = static_cast<int>(threadIdx.x) - 32 * kSpanWarps;
  for (int at = thread; at < kDiagonal * kSlots; at += 32 * kSquareWarps) {
    const int slot = at % kSlots, x = at / kSlots;
    if (slot >= count) continue;
    const int64_t p = begin + x;
    const bool exists = p >= 0 && p < ssm.num_positions;
    const int64_t from = exists ? p : 0;
    const int64_t c = group.channel_begin + channel + slot;
    float* const to = reinterpret_cast<float*>(&out[slot].positions[Padded(x)]);
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
  const int slot = thread / kQuads, quad = thread % kQuads;
  if (slot < min(kSlots, count)) {
    CopyQuadAsync(
        out[slot].rate + 4 * quad,
        group.FactorsAt(channel + slot, block).columns.rate + 4 * quad);
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

template <ChannelFold kFold, bool kProducts>
__global__ void __launch_bounds__(kThreads, 1)
    FoldDiagonal(Op op, FoldGroup group) {
  op = SequenceOf(op, blockIdx.z);
  group = SequenceOf(group, blockIdx.z);
  extern __shared__ __align__(16) unsigned char memory[];
  DiagonalMemory& shared = *reinterpret_cast<DiagonalMemory*>(memory);
  const int tid = threadIdx.x;
  const int lane = tid % 32, warp = WarpIndex();
  const int block = blockIdx.x, split = blockIdx.y;
  const int64_t begin = int64_t{block} * kTile;
  const int rows = static_cast<int>(
      min(int64_t{kTile}, op.attention.ssm.num_positions - begin));
  const int channel_begin = group.SplitBegin(split, group.diagonal_splits);
  const int channel_end = group.SplitBegin(split + 1, group.diagonal_splits);
  const int rounds = (channel_end - channel_begin + kSlots - 1) / kSlots;

  if (warp >= kSpanWarps) {
    LoadInputs<kProducts>(op, group, block, channel_begin,
                          channel_end - channel_begin, shared.inputs[0]);
  }
  LoadStates(op.attention.ssm, begin, shared.states);
  // S must fit the largest |Q K| of all channels; decays only make it smaller.
  float bound = 0;
  for (int channel = channel_begin + tid; channel < channel_end;
       channel += kThreads) {
    const BlockFactors& factors = group.FactorsAt(channel, block);
    bound = fmaxf(bound, factors.query_bound * factors.key_bound);
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    bound = fmaxf(bound, __shfl_xor_sync(kAllLanes, bound, offset));
  }
  if (lane == 0) shared.bounds[warp] = bound;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; ++w)
    bound = fmaxf(bound, shared.bounds[w]);
  const float scale = PowerOfTwoScale(bound, 26);
  const float unscale = 1 / scale;
  const float factor =
      kFold == ChannelFold::kSumSquares ? unscale * unscale : unscale;

  const auto product_at = [&](int channel) {
    return kProducts ? group.ProductsOf(channel, block) : nullptr;
  };
  if (warp < kSpanWarps) {
    const int slot = warp / 2, first = warp % 2 * kSpan;
    SpanSums sums;
    sums.ForEach(lane,
                 [](float& sum, int, int, bool) { sum = EmptyFold<kFold>(); });
    // One barrier per round: what it makes has another place in the next.
    for (int round = 0; round <= rounds; ++round) {
      __syncthreads();
      const int channel = channel_begin + round * kSlots + slot;
      if (channel >= channel_end || first >= rows) continue;
      SpanWork<kFold, kProducts> work(
          shared.states, shared.inputs[round % kInputRounds][slot], first,
          scale, shared.work.spans[warp], sums);
      work.Run(block + 1 < group.num_blocks, group.FactorsAt(channel, block),
               shared.work.squares[round % 2][slot], product_at(channel));
    }
    // Slots one after the other.
    for (int turn = 0; turn < kSlots; ++turn) {
      __syncthreads();
      if (turn != slot) continue;
      sums.ForEach(lane, [&](float sum, int row, int column, bool is_scaled) {
        float& out = shared.part[first + row][first + column];
        if (is_scaled) sum *= factor;
        out = turn == 0 ? sum : Joined<kFold>(out, sum);
      });
    }
  } else {
    const int own = warp - kSpanWarps;
    SquarePart<kFold, kProducts> part;
#pragma unroll
    for (int x = 0; x < kEights; ++x) {
#pragma unroll
      for (int e = 0; e < 4; ++e) part.sums[x][e] = EmptyFold<kFold>();
    }
    for (int round = 0; round <= rounds; ++round) {
      asm volatile("cp.async.wait_all;" ::: "memory");
      __syncthreads();
      const int next = channel_begin + (round + 1) * kSlots;
      if (next < channel_end) {
        LoadInputs<kProducts>(op, group, block, next, channel_end - next,
                              shared.inputs[(round + 1) % kInputRounds]);
      }
      if (round == 0 || kSpan + 16 * own >= rows) continue;
      const int before = round - 1;
      for (int slot = 0; slot < kSlots; ++slot) {
        const int channel = channel_begin + before * kSlots + slot;
        if (channel >= channel_end) break;
        part.Add(shared.states, shared.inputs[before % kInputRounds][slot],
                 shared.work.squares[before % 2][slot], own, scale,
                 product_at(channel) + kSpan);
      }
    }
    __syncthreads();
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int x = 0; x < kEights; ++x) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        shared.part[kSpan + 16 * own + g + e / 2 * 8][8 * x + 2 * t + e % 2] =
            part.sums[x][e] * factor;
      }
    }
    for (int turn = 1; turn < kSlots; ++turn) __syncthreads();
  }
  __syncthreads();
  float* const out =
      group.diagonals +
      (int64_t{split} * group.num_blocks + block) * kTile * kDiagonalStride;
  for (int row = warp; row < rows; row += kThreads / 32) {
    for (int column = lane; column <= row + kShift; column += 32) {
      out[row * kDiagonalStride + column] = shared.part[row][column];
    }
  }
}

template <ChannelFold kFold, bool kProducts>
absl::Status Launch(const Op& op, const FoldGroup& group, cudaStream_t stream) {
  return LaunchWithSharedMemory(
      "SsmAttentionFold", FoldDiagonal<kFold, kProducts>,
      dim3(group.num_blocks, group.diagonal_splits, group.num_sequences),
      kThreads, sizeof(DiagonalMemory), stream, op, group);
}

}  // namespace

bool DiagonalsFit() {
  int device = 0, bytes = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                device) == cudaSuccess &&
         bytes >= static_cast<int>(sizeof(DiagonalMemory));
}

absl::Status FoldDiagonals(const Op& op, const FoldGroup& group,
                           cudaStream_t stream) {
  return WithFoldAndProducts(op.fold, group.products != nullptr,
                             [&]<ChannelFold kFold, bool kProducts>() {
                               return Launch<kFold, kProducts>(op, group,
                                                               stream);
                             });
}

}  // namespace limpid::kernels::cuda
