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
// upper border, on tensor cores, down to triangles of kLeast rows, which go
// column by column from the diagonal to the left. Three entries per row, where
// taps are still to come, stand by themselves.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cuda/async_copy.h"
#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/mma.h"
#include "server/kernels/cuda/ssm_fold.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

using Op = SsmAttentionFold<float>;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
// Rows of a warp. A lane has one of them and half of the states.
constexpr int kSub = 16;
constexpr int kHalf = kFoldStates / 2;
static_assert(kWarps * kSub == kTile);
// Rows of the smallest triangles, and squares of 8, 16, 32 and 64 rows.
constexpr int kLeast = 8;
constexpr int kLevels = 4;
constexpr int kOwnEntries = kLeast / 2;  // of a triangle's row, in a lane
constexpr int kSlots = kLevels + 2;
// Floats between rows of states: 8 of them are in different banks.
constexpr int kStateStride = kFoldStates + 4;
constexpr int kInputs = 3;

// Position x of an array of kDiagonal is position x - kShift of the block;
// those outside of the sequence are zeros.
struct alignas(16) ChannelInputs {
  float value[kDiagonal + 1];
  float delta[kDiagonal];
  float source[kDiagonal];
  float row_scale[kTile];
  // As in ColumnFactors.
  alignas(16) float rate[kFoldStates];
  float taps[kTaps];
  float unit, skip, weight, bound;
};

// All states of a row. Those of the same number are in different banks for
// neighbouring rows, and for rows 8 apart.
struct alignas(16) StateRow {
  float4 quads[kFoldStates / 4];

  __device__ float4& Quad(int row, int quad) {
    return quads[quad ^ (row / 2 + row / 8) % (kFoldStates / 4)];
  }
};

struct alignas(16) DiagonalMemory {
  float b[kDiagonal][kStateStride];
  float c[kTile][kStateStride];
  // Factors of the squares of kLeast << level rows: of each position as a row
  // or as a column, high halves of states 0 to 7 and 8 to 15, then low ones.
  // This channel's and the next one's.
  uint4 halves[2][kLevels][4][kTile];
  // X, and decay by a row's own delta.
  StateRow key[kTile];
  StateRow decay[kTile];
  // This channel's, the next one's, and those that warps behind still read.
  ChannelInputs inputs[kInputs];
  // What the squares of each level, triangles and missing taps give to the
  // products.
  float products[2][kSlots][kTile];
  float bounds[kWarps];
};

template <bool kProducts>
__device__ void LoadInputs(const Op& op, const ColumnFactors& factors,
                           int64_t begin, int64_t c, ChannelInputs& out) {
  const SsmAttention<float>& attention = op.attention;
  const SelectiveSsm<float>& ssm = attention.ssm;
  const int x = threadIdx.x;
  if (x < kDiagonal) {
    const int64_t p = begin - kShift + x;
    const bool exists = p >= 0 && p < ssm.num_positions;
    const int64_t at = exists ? p : 0;
    CopyWordAsync(out.delta + x, ssm.delta + at * ssm.delta_stride + c, exists);
    if (attention.source_scale != nullptr) {
      CopyWordAsync(out.source + x,
                    attention.source_scale + at * attention.source_stride + c,
                    exists);
    } else {
      out.source[x] = exists ? 1.0f : 0.0f;
    }
    if (kProducts) {
      CopyWordAsync(out.value + x, op.value + at * op.value_stride + c, exists);
    }
  }
  if (x < kTile) {
    const bool exists = begin + x < ssm.num_positions;
    const int64_t at = exists ? begin + x : 0;
    if (attention.row_scale != nullptr) {
      CopyWordAsync(out.row_scale + x,
                    attention.row_scale + at * attention.row_stride + c,
                    exists);
    } else {
      out.row_scale[x] = exists ? 1.0f : 0.0f;
    }
  }
  constexpr int kQuads = (kFoldStates + kTaps + 4) / 4;
  const int quad = x - (kThreads - kQuads);
  if (quad >= 0) {
    CopyQuadAsync(out.rate + 4 * quad, factors.rate + 4 * quad);
  }
}

__device__ void LoadHalf(const float* from, float (&out)[kHalf]) {
  const float4 low = *reinterpret_cast<const float4*>(from);
  const float4 high = *reinterpret_cast<const float4*>(from + 4);
  out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
  out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
}

__device__ void StoreHalf(StateRow (&to)[kTile], int row, int half,
                          const float (&from)[kHalf]) {
  to[row].Quad(row, 2 * half) = {from[0], from[1], from[2], from[3]};
  to[row].Quad(row, 2 * half + 1) = {from[4], from[5], from[6], from[7]};
}

__device__ float4 Scaled(const float4& x, float scale) {
  return {x.x * scale, x.y * scale, x.z * scale, x.w * scale};
}

// Sums of delta from and to the borders of the groups that a row is in. Only
// additions, so that small sums keep their digits beside large ones.
struct BorderSums {
  // Between the row and the upper border of its square at each level if it is
  // one of its rows, else between the column and that border.
  float square[kLevels];
  float from_begin;  // of the block, up to the row
  float to_end;      // behind the row

  __device__ BorderSums(const float* delta, int row) {
    constexpr unsigned kAll = 0xffffffffu;
    const int lane = threadIdx.x % 32;
    // Sums of groups of 16, 32 and 64 rows: every lane has four rows of the
    // block.
    float groups[3];
    float group = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) group += delta[4 * lane + k];
#pragma unroll
    for (int k = 0, offset = 1; k < 4; ++k, offset *= 2) {
      group += __shfl_xor_sync(kAll, group, offset);
      if (k > 0) groups[k - 1] = group;
    }
    // Within eight rows: as a row from the first one on, as a column up to the
    // last one.
    const float own = delta[row];
    float ahead = own, behind = own;
#pragma unroll
    for (int offset = 1; offset < kLeast; offset *= 2) {
      const float from_ahead = __shfl_up_sync(kAll, ahead, offset);
      const float from_behind = __shfl_down_sync(kAll, behind, offset);
      if (row % kLeast >= offset) ahead += from_ahead;
      if (row % kLeast + offset < kLeast) behind += from_behind;
    }
    const float other_eight =
        __shfl_xor_sync(kAll, __shfl_sync(kAll, ahead, lane | 7), 8);
    behind = __shfl_down_sync(kAll, behind, 1);
    if (row % kLeast == kLeast - 1) behind = 0;
      // Of twice as many rows each time, if it is not the last border of them.
#pragma unroll
    for (int level = 0; level < kLevels; ++level) {
      const int rows = kLeast << level;
      square[level] = (row & rows) != 0 ? ahead : behind;
      const float other =
          level == 0 ? other_eight
                     : __shfl_sync(kAll, groups[level - 1], (row ^ rows) / 4);
      if ((row & rows) != 0) {
        ahead += other;
      } else {
        behind += other;
      }
    }
    from_begin = ahead;
    to_end = behind;
  }
};

// Half of the states of a key or query, decayed by exp(rate sum), as halves.
struct StateHalves {
  uint4 high, low;

  __device__ StateHalves(const float (&states)[kHalf],
                         const float (&rate)[kHalf], float sum) {
#pragma unroll
    for (int k = 0; k < kHalf; k += 2) {
      const HalfPairs pairs =
          Split(states[k] * ExpOfLog2(rate[k] * sum),
                states[k + 1] * ExpOfLog2(rate[k + 1] * sum));
      (&high.x)[k / 2] = pairs.high;
      (&low.x)[k / 2] = pairs.low;
    }
  }
};

// A fragment of eight rows by 16 bytes, four times, in the order of `address`.
__device__ void LoadMatrices(const uint4* row, uint32_t (&out)[4]) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
      : "r"(address)
      : "memory");
}

// Factors of one level as the left or the right side of a product.
struct LevelHalves {
  const uint4 (&halves)[4][kTile];

  __device__ LeftHalves Rows(int row, int lane) const {
    // Rows 0 to 7 and 8 to 15 by states 0 to 7, then by 8 to 15.
    const int which = lane / 16, at = row + lane % 16;
    LeftHalves out;
    LoadMatrices(&halves[which][at], out.high);
    LoadMatrices(&halves[2 + which][at], out.low);
    return out;
  }
  __device__ uint4 Columns(int column, int lane) const {
    uint32_t out[4];
    LoadMatrices(&halves[lane / 8][column + lane % 8], out);
    return {out[0], out[1], out[2], out[3]};
  }
};

// Part of a square that a warp has: 16 rows by `count` times 8 columns.
struct Strip {
  int level, row, column, count;
};
constexpr int kStrips = 2;
constexpr int kStripParts = 4;

// The square of 64 rows is shared by the first half of the warps, those of 32
// and 16 rows by the others.
__device__ Strip StripOf(int warp, int index) {
  constexpr int kHere = kWarps / 2;
  if (warp < kHere) {
    return {3, kTile / 2 + kSub * warp, 32 * index, kStripParts};
  }
  const int own = warp - kHere;
  if (index == 0) {
    return {2, 64 * (own / 2) + 32 + kSub * (own % 2), 64 * (own / 2),
            kStripParts};
  }
  return {1, 32 * own + kSub, 32 * own, 2};
}

template <ChannelFold kFold, bool kProducts>
__global__ void __launch_bounds__(kThreads, 2)
    FoldDiagonal(Op op, FoldGroup group) {
  op = SequenceOf(op, blockIdx.z);
  group = SequenceOf(group, blockIdx.z);
  constexpr unsigned kAll = 0xffffffffu;
  extern __shared__ __align__(16) unsigned char memory[];
  DiagonalMemory& shared = *reinterpret_cast<DiagonalMemory*>(memory);
  const SsmAttention<float>& attention = op.attention;
  const SelectiveSsm<float>& ssm = attention.ssm;
  const int tid = threadIdx.x;
  const int lane = tid % 32, warp = tid / 32;
  const int g = lane / 4, t = lane % 4;
  const int block = blockIdx.x, split = blockIdx.y;
  const int64_t begin = int64_t{block} * kTile;
  const int channel_begin = group.SplitBegin(split, group.diagonal_splits);
  const int channel_end = group.SplitBegin(split + 1, group.diagonal_splits);
  const int num_states = static_cast<int>(ssm.state_size);

  for (int at = tid; at < kDiagonal * kFoldStates; at += kThreads) {
    const int x = at / kFoldStates, n = at % kFoldStates;
    const int64_t p = begin - kShift + x;
    const bool exists = p >= 0 && p < ssm.num_positions && n < num_states;
    shared.b[x][n] = exists ? ssm.b[p * ssm.b_stride + n] : 0;
    if (x >= kShift) {
      shared.c[x - kShift][n] = exists ? ssm.c[p * ssm.c_stride + n] : 0;
    }
  }
  for (int at = tid; at < 2 * kSlots * kTile; at += kThreads) {
    (&shared.products[0][0][0])[at] = 0;
  }
  // S must fit the largest |Q K| of all channels; decays only make it smaller.
  float bound = 0;
  for (int at = channel_begin * kFoldStates + tid;
       at < channel_end * kFoldStates; at += kThreads) {
    const BlockFactors& factors = group.FactorsAt(at / kFoldStates, block);
    bound = fmaxf(
        bound, factors.query_bound[at % kFoldStates] * factors.columns.bound);
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    bound = fmaxf(bound, __shfl_xor_sync(kAll, bound, offset));
  }
  if (lane == 0) shared.bounds[warp] = bound;
  LoadInputs<kProducts>(op, group.FactorsAt(channel_begin, block).columns,
                        begin, group.channel_begin + channel_begin,
                        shared.inputs[0]);
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) bound = fmaxf(bound, shared.bounds[w]);
  const float scale = PowerOfTwoScale(bound, 26);
  const float unscale = 1 / scale;

  const auto store_products = [&](int channel) {
    if (!kProducts || tid >= kTile) return;
    const float(&of)[kSlots][kTile] = shared.products[channel % 2];
    float sum = 0;
#pragma unroll
    for (int level = 0; level < kLevels; ++level) sum += of[level][tid];
    group.products[group.ProductsAt(channel, block, block) + tid] =
        sum * unscale + of[kLevels][tid] + of[kLevels + 1][tid];
  };

  // The lane's row and half of the states.
  const int row = warp * kSub + lane % kSub;
  const int half = lane / kSub;
  const int first_state = half * kHalf;
  float strip_sums[kStrips][kStripParts][4], square_sums[2];
  float triangle_sums[kOwnEntries], tap_sums[kShift];
#pragma unroll
  for (int s = 0; s < kStrips; ++s) {
#pragma unroll
    for (int x = 0; x < kStripParts; ++x) {
#pragma unroll
      for (int e = 0; e < 4; ++e) strip_sums[s][x][e] = EmptyFold<kFold>();
    }
  }
  square_sums[0] = square_sums[1] = EmptyFold<kFold>();
#pragma unroll
  for (int j = 0; j < kOwnEntries; ++j) triangle_sums[j] = EmptyFold<kFold>();
#pragma unroll
  for (int d = 0; d < kShift; ++d) tap_sums[d] = EmptyFold<kFold>();

  for (int channel = channel_begin; channel < channel_end; ++channel) {
    const int64_t c = group.channel_begin + channel;
    const int buffer = channel % 2;
    const int index = channel - channel_begin;
    const ChannelInputs& in = shared.inputs[index % kInputs];
    const float unit = in.unit, weight = in.weight, skip = in.skip;
    float taps[kTaps], rate[kHalf];
#pragma unroll
    for (int d = 0; d < kTaps; ++d) taps[d] = in.taps[d];
    LoadHalf(in.rate + first_state, rate);
    if (channel + 1 < channel_end) {
      LoadInputs<kProducts>(op, group.FactorsAt(channel + 1, block).columns,
                            begin, c + 1, shared.inputs[(index + 1) % kInputs]);
    }
    // The warp's lanes have read the keys of the last channel.
    __syncwarp();

    // X, and what is to be had on the way: entries of the taps so far.
    const float row_scale = in.row_scale[row];
    float query[kHalf], key[kHalf], tap_entries[kShift];
    LoadHalf(shared.c[row] + first_state, query);
#pragma unroll
    for (int k = 0; k < kHalf; ++k) query[k] *= row_scale;
    {
      // Entries of the recurrence alone: of this row, the one before, and the
      // one before that.
      float states[kShift], through[kHalf];
#pragma unroll
      for (int k = 0; k < kHalf; ++k) through[k] = 1, key[k] = 0;
#pragma unroll
      for (int d = kTaps - 1; d >= 0; --d) {
        const int x = row + d;
        const float input = in.delta[x] * in.source[x];
        float b[kHalf];
        LoadHalf(shared.b[x] + first_state, b);
        float state = 0;
#pragma unroll
        for (int k = 0; k < kHalf; ++k) {
          const float decayed = through[k] * b[k];
          key[k] += taps[d] * input * decayed;
          state += query[k] * decayed;
        }
        if (d == 0) continue;
        state += __shfl_xor_sync(kAll, state, kSub);
        states[kShift - d] = state * input;
        const float delta = in.delta[x];
        float decay[kHalf];
#pragma unroll
        for (int k = 0; k < kHalf; ++k) {
          decay[k] = ExpOfLog2(rate[k] * delta);
          through[k] *= decay[k];
        }
        if (d == kShift) StoreHalf(shared.decay, row, half, decay);
      }
      StoreHalf(shared.key, row, half, key);
      states[0] += row_scale * skip * in.source[row + kShift];
      // Column row + 1 + d lacks the taps from kShift - d on.
#pragma unroll
      for (int d = 0; d < kShift; ++d) {
        float entry = 0;
#pragma unroll
        for (int tap = 0; tap < kShift - d; ++tap) {
          entry += taps[tap] * states[kShift - 1 - d - tap];
        }
        tap_entries[d] = entry;
      }
    }
    // Factors of the squares, and of the tiles beside and below.
    const BorderSums sums(in.delta + kShift, row);
    const float to_query = unit * scale, to_key = 1 / unit;
#pragma unroll
    for (int k = 0; k < kHalf; ++k) key[k] *= to_key;
    float scaled[kHalf];
#pragma unroll
    for (int k = 0; k < kHalf; ++k) scaled[k] = query[k] * to_query;
    const auto set_halves = [&](int level, const float(&states)[kHalf]) {
      const StateHalves halves(states, rate, sums.square[level]);
      shared.halves[buffer][level][half][row] = halves.high;
      shared.halves[buffer][level][2 + half][row] = halves.low;
    };
#pragma unroll
    for (int level = 0; level < kLevels; ++level) {
      const bool is_row = (row & kLeast << level) != 0;
      if (level > 0) {  // all rows of a warp are the same
        is_row ? set_halves(level, scaled) : set_halves(level, key);
        continue;
      }
      float states[kHalf];
#pragma unroll
      for (int k = 0; k < kHalf; ++k) states[k] = is_row ? scaled[k] : key[k];
      set_halves(level, states);
    }
    {
      BlockFactors& factors = group.FactorsAt(channel, block);
      const StateHalves halves(key, rate, sums.to_end);
      factors.columns.keys[row / 8][half][row % 8] = halves.high;
      factors.columns.keys[row / 8][2 + half][row % 8] = halves.low;
      if (half == 0) factors.rows.rows[row] = {sums.from_begin, row_scale};
      if (kProducts && lane < 4) {
        const float* const value = in.value + warp * kSub + 2 * lane;
        factors.columns.value[warp][lane] = {value[0], value[1], value[8],
                                             value[9]};
      }
    }
    // One barrier per channel: what it writes has another place in the next.
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    if (channel > channel_begin) store_products(channel - 1);

    float product = 0;
#pragma unroll
    for (int d = 0; d < kShift; ++d) {
      tap_sums[d] = Folded<kFold>(tap_sums[d], tap_entries[d], weight);
      if (kProducts) product += tap_entries[d] * in.value[row + 1 + d];
    }
    if (kProducts && half == 0) {
      shared.products[buffer][kLevels + 1][row] = product;
    }
    // Triangles, from the diagonal to the left. A lane has two rows and a
    // quarter of the states, so that what it loads counts twice.
    const int pair = warp * kSub + lane % kLeast * 2;
    const int corner = pair / kLeast * kLeast, quad = lane / kLeast;
    float4 queries[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float4 c_row =
          *reinterpret_cast<const float4*>(shared.c[pair + r] + 4 * quad);
      queries[r] = Scaled(c_row, in.row_scale[pair + r]);
    }
    // Of one of the two rows, by half of the states.
    float own_part[kLeast];
#pragma unroll
    for (int j = kLeast - 1; j >= 0; --j) {
      const int column = corner + j;
      const float4 states = shared.key[column].Quad(column, quad);
      const float4 decay = shared.decay[column].Quad(column, quad);
      float parts[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const bool below = column <= pair + r;
        float4& query = queries[r];
        parts[r] = below ? AddProducts(query.x * states.x + query.y * states.y,
                                       query.z, states.z, query.w, states.w)
                         : 0.0f;
        if (below) {
          query.x *= decay.x;
          query.y *= decay.y;
          query.z *= decay.z;
          query.w *= decay.w;
        }
      }
      const float sent = quad / 2 == 0 ? parts[1] : parts[0];
      own_part[j] = (quad / 2 == 0 ? parts[0] : parts[1]) +
                    __shfl_xor_sync(kAll, sent, 2 * kLeast);
    }
    // A lane adds up half of the entries of its row.
    const int own_row = pair + quad / 2;
    const int own_column = corner + quad % 2 * kOwnEntries;
    const float of_skip = in.row_scale[own_row] * taps[kShift] * skip *
                          in.source[own_row + kShift];
    float triangle_product = 0;
#pragma unroll
    for (int j = 0; j < kOwnEntries; ++j) {
      const float sent =
          quad % 2 == 0 ? own_part[j + kOwnEntries] : own_part[j];
      const float kept =
          quad % 2 == 0 ? own_part[j] : own_part[j + kOwnEntries];
      float entry = kept + __shfl_xor_sync(kAll, sent, kLeast);
      if (own_column + j == own_row) entry += of_skip;
      triangle_sums[j] = Folded<kFold>(triangle_sums[j], entry, weight);
      if (kProducts) triangle_product += entry * in.value[own_column + j];
    }
    if (kProducts) {
      triangle_product += __shfl_xor_sync(kAll, triangle_product, kLeast);
      if (quad % 2 == 0) {
        shared.products[buffer][kLevels][own_row] = triangle_product;
      }
    }

    // The square of the warp's own rows; those of its upper half are columns.
    const auto reduce_row = [&](float sum, int level, int at) {
      sum += __shfl_xor_sync(kAll, sum, 1);
      sum += __shfl_xor_sync(kAll, sum, 2);
      if (t == 0) shared.products[buffer][level][at] = sum;
    };
    {
      const LevelHalves level{shared.halves[buffer][0]};
      float entries[4];
      MultiplyPairs(entries, level.Rows(warp * kSub, lane),
                    level.Columns(warp * kSub, lane));
      const int column = warp * kSub + 2 * t;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        square_sums[e] = Folded<kFold>(square_sums[e], entries[2 + e], weight);
      }
      if (kProducts) {
        reduce_row(
            entries[2] * in.value[column] + entries[3] * in.value[column + 1],
            0, warp * kSub + kLeast + g);
      }
    }
    float products[2] = {};
#pragma unroll
    for (int s = 0; s < kStrips; ++s) {
      const Strip strip = StripOf(warp, s);
      const LevelHalves level{shared.halves[buffer][strip.level]};
      const LeftHalves left = level.Rows(strip.row, lane);
#pragma unroll
      for (int x = 0; x < kStripParts; ++x) {
        if (x >= strip.count) continue;
        float entries[4];
        MultiplyPairs(entries, left, level.Columns(strip.column + 8 * x, lane));
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          strip_sums[s][x][e] =
              Folded<kFold>(strip_sums[s][x][e], entries[e], weight);
        }
        if (kProducts) {
          const float2 value = *reinterpret_cast<const float2*>(
              in.value + strip.column + 8 * x + 2 * t);
          products[0] = AddProducts(products[0], entries[0], value.x,
                                    entries[1], value.y);
          products[1] = AddProducts(products[1], entries[2], value.x,
                                    entries[3], value.y);
        }
      }
      // Both strips of a warp of the first half have the same rows.
      if (kProducts && (s > 0 || warp >= kWarps / 2)) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          reduce_row(products[h], strip.level, strip.row + 8 * h + g);
          products[h] = 0;
        }
      }
    }
  }
  __syncthreads();
  if (channel_end > channel_begin) store_products(channel_end - 1);

  float* const out =
      group.diagonals +
      (int64_t{split} * group.num_blocks + block) * kTile * kDiagonalStride;
  const float factor =
      kFold == ChannelFold::kSumSquares ? unscale * unscale : unscale;
#pragma unroll
  for (int s = 0; s < kStrips; ++s) {
    const Strip strip = StripOf(warp, s);
#pragma unroll
    for (int x = 0; x < kStripParts; ++x) {
      if (x >= strip.count) continue;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int r = strip.row + g + e / 2 * 8;
        out[r * kDiagonalStride + strip.column + 8 * x + 2 * t + e % 2] =
            strip_sums[s][x][e] * factor;
      }
    }
  }
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    out[(warp * kSub + kLeast + g) * kDiagonalStride + warp * kSub + 2 * t +
        e] = square_sums[e] * factor;
  }
  const int quad = lane / kLeast;
  const int triangle_row = warp * kSub + lane % kLeast * 2 + quad / 2;
#pragma unroll
  for (int j = 0; j < kOwnEntries; ++j) {
    const int column =
        triangle_row / kLeast * kLeast + quad % 2 * kOwnEntries + j;
    if (column <= triangle_row) {
      out[triangle_row * kDiagonalStride + column] = triangle_sums[j];
    }
  }
  if (half == 0) {
#pragma unroll
    for (int d = 0; d < kShift; ++d) {
      out[row * kDiagonalStride + row + 1 + d] = tap_sums[d];
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
         cudaDeviceGetAttribute(&bytes,
                                cudaDevAttrMaxSharedMemoryPerBlockOptin,
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
