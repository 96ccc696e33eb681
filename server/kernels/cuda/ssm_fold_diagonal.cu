// SPDX-License-Identifier: Apache-2.0
//
// The tiles of SsmAttentionFold at the diagonal: rows of one block of kTile
// against the columns from kShift before it up to the diagonal. Between
// sub-blocks of kSub positions the entries are products of factors again, as
// off the diagonal; within a sub-block every row decays the keys before it. The
// kShift columns before a sub-block have taps on both sides of its begin.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/mma.h"
#include "server/kernels/cuda/ssm_fold.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kSubs = kTile / kSub;
static_assert(kSubs == kWarps && kThreads == 2 * kSubs * kFoldStates);
// Pairs of different sub-blocks, and how many a warp has at most.
constexpr int kPairs = kSubs * (kSubs - 1) / 2;
constexpr int kOwnPairs = (kPairs + kWarps - 1) / kWarps;

using Op = SsmAttentionFold<float>;

// Position x of an array of kDiagonal is position x - kShift of the block;
// those outside of the sequence are zeros.
struct alignas(16) ChannelInputs {
  float value[kDiagonal];
  float delta[kDiagonal];
  float source[kDiagonal];
  float row_scale[kTile];
};

struct alignas(16) DiagonalMemory {
  float b[kDiagonal][kFoldStates];
  float c[kTile][kFoldStates];
  float decay[kTile][kFoldStates];  // by a row's own delta
  float4 query[kSubs][2][32];
  uint4 key[kSubs][2][32];
  float key_unscale[kSubs][kFoldStates];
  // What the positions before a sub-block give to the kShift columns before it,
  // decayed to the end of the one before; and rows of entries made of it.
  float before[kSubs][kShift][kFoldStates];
  float entries_before[kSubs][kShift][kSub];
  // Decay through a whole sub-block.
  float through[kSubs][kFoldStates];
  // This channel's and the next one's.
  ChannelInputs inputs[2];
  // Of the pairs, then of the sub-blocks with themselves.
  float products[kPairs + kSubs][kSub];
  float bounds[kWarps];
};

// Neighbours that begin at an even place, or at one that 4 divides.
__device__ float2 PairOf(const float* from) {
  return *reinterpret_cast<const float2*>(from);
}
__device__ float4 QuadOf(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}

// Four bytes, or zero.
__device__ void CopyWordAsync(float* to, const float* from, bool exists) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int size = exists ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address),
               "l"(from), "r"(size)
               : "memory");
}

template <bool kProducts>
__device__ void LoadInputs(const Op& op, int64_t begin, int64_t c,
                           ChannelInputs& out) {
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
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// The keys of one state of sub-block `sub`, decayed to its end and convolved.
__device__ void BuildKeys(DiagonalMemory& shared, const ChannelInputs& in,
                          const float (&taps)[kTaps], float a, int sub, int n) {
  constexpr int kSpan = kSub + kShift;
  const int first = sub * kSub;
  float sum_taps = 0, bound = 0;
#pragma unroll
  for (int d = 0; d < kTaps; ++d) sum_taps += fabsf(taps[d]);
  float keys[kSpan];
#pragma unroll
  for (int w = 0; w < kSpan; ++w) {
    const int x = first + w;
    keys[w] = in.delta[x] * in.source[x] * shared.b[x][n];
    bound = fmaxf(bound, fabsf(keys[w]));
  }
  const float scale = PowerOfTwoScale(bound * sum_taps, 13);
  shared.key_unscale[sub][n] = 1 / scale;

  float sum = 0;
  float after[kShift] = {};
  const int t = n % 8 / 2;
#pragma unroll
  for (int w = kSpan - 1; w >= 0; --w) {
    const float key = keys[w] * ExpOfLog2(a * sum);
    float column = taps[0] * key;
#pragma unroll
    for (int d = 1; d < kTaps; ++d) column += taps[d] * after[d - 1];
#pragma unroll
    for (int d = kShift - 1; d > 0; --d) after[d] = after[d - 1];
    after[0] = key;
    sum += in.delta[first + w];
    // The sub-block's own positions are the last kSub.
    if (w == kShift) shared.through[sub][n] = ExpOfLog2(a * sum);
    if (w >= kSub && sub + 1 < kSubs) {
      shared.before[sub + 1][w - kSub][n] = column;
    }
    if (w < kSub) {
      const float mine = column * scale;
      const float other = __shfl_xor_sync(0xffffffffu, mine, 1);
      const HalfPairs pairs =
          n % 2 == 0 ? Split(mine, other) : Split(other, mine);
      uint32_t* const fragment =
          reinterpret_cast<uint32_t*>(&shared.key[sub][w / 8][w % 8 * 4 + t]);
      fragment[n % 2 * 2 + n / 8] = n % 2 == 0 ? pairs.high : pairs.low;
    }
  }
}

// The same for the positions before the block, of which no sub-block is made.
__device__ void BuildKeysBefore(DiagonalMemory& shared, const ChannelInputs& in,
                                const float (&taps)[kTaps], float a, int n) {
  float sum = 0;
  float keys[kShift];
#pragma unroll
  for (int x = kShift - 1; x >= 0; --x) {
    keys[x] = in.delta[x] * in.source[x] * shared.b[x][n] * ExpOfLog2(a * sum);
    sum += in.delta[x];
    float column = 0;
#pragma unroll
    for (int d = 0; x + d < kShift; ++d) column += taps[d] * keys[x + d];
    shared.before[0][x][n] = column;
  }
}

// Queries of one state of sub-block `sub`, and the decays of its rows.
__device__ void BuildQueries(DiagonalMemory& shared, const ChannelInputs& in,
                             float a, int sub, int n) {
  const int t = n % 8 / 2;
  float sum = 0;
#pragma unroll
  for (int r = 0; r < kSub; ++r) {
    const int row = sub * kSub + r;
    const float delta = in.delta[row + kShift];
    sum += delta;
    shared.decay[row][n] = ExpOfLog2(a * delta);
    float* const fragment =
        reinterpret_cast<float*>(&shared.query[sub][n / 8][r % 8 * 4 + t]);
    fragment[r / 8 * 2 + n % 2] =
        shared.c[row][n] * in.row_scale[row] * ExpOfLog2(a * sum);
  }
}

template <ChannelFold kFold, bool kProducts>
__global__ void __launch_bounds__(kThreads, 2)
    FoldDiagonal(Op op, FoldGroup group) {
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
    const int64_t p = begin - kShift + at / kFoldStates;
    const int n = at % kFoldStates;
    const bool exists = p >= 0 && p < ssm.num_positions && n < num_states;
    shared.b[at / kFoldStates][n] = exists ? ssm.b[p * ssm.b_stride + n] : 0;
    if (at < kTile * kFoldStates) {
      const int64_t i = begin + at / kFoldStates;
      shared.c[at / kFoldStates][n] = i < ssm.num_positions && n < num_states
                                          ? ssm.c[i * ssm.c_stride + n]
                                          : 0;
    }
  }
  // S must fit the largest |Q K| of all channels; decays only make it smaller.
  float bound = 0;
  for (int at = channel_begin * kFoldStates + tid;
       at < channel_end * kFoldStates; at += kThreads) {
    const BlockFactors& factors =
        group.factors[int64_t{at / kFoldStates} * group.num_blocks + block];
    bound = fmaxf(bound, factors.query_bound[at % kFoldStates] *
                             factors.key_bound[at % kFoldStates]);
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    bound = fmaxf(bound, __shfl_xor_sync(0xffffffffu, bound, offset));
  }
  if (lane == 0) shared.bounds[warp] = bound;
  LoadInputs<kProducts>(op, begin, group.channel_begin + channel_begin,
                        shared.inputs[0]);
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) bound = fmaxf(bound, shared.bounds[w]);
  const float scale = PowerOfTwoScale(bound, 26);
  const float unscale = 1 / scale;

  const auto store_products = [&](int channel) {
    if (!kProducts || tid >= kTile) return;
    const int sub = tid / kSub, r = tid % kSub;
    float sum = 0;
    for (int b = 0; b < sub; ++b) {
      sum += shared.products[sub * (sub - 1) / 2 + b][r];
    }
    group.products[group.ProductsAt(channel, block, block) + tid] =
        sum * unscale + shared.products[kPairs + sub][r];
  };

  float pair_sums[kOwnPairs][2][4];
#pragma unroll
  for (int slot = 0; slot < kOwnPairs; ++slot) {
#pragma unroll
    for (int x = 0; x < 2; ++x) {
#pragma unroll
      for (int e = 0; e < 4; ++e) pair_sums[slot][x][e] = EmptyFold<kFold>();
    }
  }
  float sums[kSub];
#pragma unroll
  for (int r = 0; r < kSub; ++r) sums[r] = EmptyFold<kFold>();
  // Which pairs are this warp's.
  int pair_rows[kOwnPairs], pair_columns[kOwnPairs];
#pragma unroll
  for (int slot = 0; slot < kOwnPairs; ++slot) {
    const int pair = slot * kWarps + warp;
    int row = 1;
    while ((row + 1) * row / 2 <= pair) ++row;
    pair_rows[slot] = row;
    pair_columns[slot] = pair - row * (row - 1) / 2;
  }

  for (int channel = channel_begin; channel < channel_end; ++channel) {
    const int64_t c = group.channel_begin + channel;
    const ChannelInputs& in = shared.inputs[(channel - channel_begin) % 2];
    float taps[kTaps];
    LoadTaps(attention.conv_weight, attention.conv_width, c, taps);
    const auto rate = [&](int n) {
      return n < num_states ? ssm.a[c * num_states + n] * kLog2E : 0.0f;
    };
    const float weight =
        kFold == ChannelFold::kWeightedSumAbs ? op.weight[c] : 1.0f;
    const float skip = ssm.skip == nullptr ? 0.0f : ssm.skip[c];
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();

    if (channel > channel_begin) store_products(channel - 1);
    const int n = tid % kFoldStates, sub = tid / kFoldStates % kSubs;
    if (tid < kThreads / 2) {
      BuildQueries(shared, in, rate(n), sub, n);
    } else {
      BuildKeys(shared, in, taps, rate(n), sub, n);
      if (sub == 0) BuildKeysBefore(shared, in, taps, rate(n), n);
    }
    __syncthreads();
    if (channel + 1 < channel_end) {
      LoadInputs<kProducts>(op, begin, c + 1,
                            shared.inputs[(channel + 1 - channel_begin) % 2]);
    }

#pragma unroll
    for (int slot = 0; slot < kOwnPairs; ++slot) {
      const int pair = slot * kWarps + warp;
      if (pair >= kPairs) continue;
      const int row = pair_rows[slot], column = pair_columns[slot];
      float2 low = PairOf(&shared.key_unscale[column][2 * t]);
      float2 high = PairOf(&shared.key_unscale[column][2 * t + 8]);
#pragma unroll 1
      for (int between = column + 1; between < row; ++between) {
        const float2 through_low = PairOf(&shared.through[between][2 * t]);
        const float2 through_high = PairOf(&shared.through[between][2 * t + 8]);
        low.x *= through_low.x;
        low.y *= through_low.y;
        high.x *= through_high.x;
        high.y *= through_high.y;
      }
      const float scales[4] = {low.x * scale, low.y * scale, high.x * scale,
                               high.y * scale};
      const LeftHalves left = ScaledLeft(shared.query[row][0][lane],
                                         shared.query[row][1][lane], scales);
      float products[2] = {};
#pragma unroll
      for (int x = 0; x < 2; ++x) {
        float entries[4];
        MultiplyPairs(entries, left, shared.key[column][x][lane]);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          pair_sums[slot][x][e] =
              Folded<kFold>(pair_sums[slot][x][e], entries[e], weight);
        }
        if (kProducts) {
          const float2 value = PairOf(&in.value[column * kSub + x * 8 + 2 * t]);
          products[0] = AddProducts(products[0], entries[0], value.x,
                                    entries[1], value.y);
          products[1] = AddProducts(products[1], entries[2], value.x,
                                    entries[3], value.y);
        }
      }
      if (kProducts) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float sum = products[h];
          sum += __shfl_xor_sync(0xffffffffu, sum, 1);
          sum += __shfl_xor_sync(0xffffffffu, sum, 2);
          if (t == 0) shared.products[pair][h * 8 + g] = sum;
        }
      }
    }

    // Within sub-block `warp`: lanes are rows, then positions, by halves of the
    // states, and after the convolution columns.
    const int position = lane % kSub;
    const int half = lane / kSub * (kFoldStates / 2);
    float before[kShift] = {};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float* const fragment = reinterpret_cast<const float*>(
          &shared.query[warp][lane / kSub][position % 8 * 4 + k]);
      const float2 query = PairOf(fragment + position / 8 * 2);
#pragma unroll
      for (int x = 0; x < kShift; ++x) {
        const float2 key = PairOf(&shared.before[warp][x][half + 2 * k]);
        before[x] = AddProducts(before[x], query.x, key.x, query.y, key.y);
      }
    }
#pragma unroll
    for (int x = 0; x < kShift; ++x) {
      before[x] += __shfl_xor_sync(0xffffffffu, before[x], kSub);
      if (lane < kSub) shared.entries_before[warp][x][lane] = before[x];
    }
    __syncwarp();
    const int x = warp * kSub + kShift + position;
    float key[kFoldStates / 2];
#pragma unroll
    for (int k = 0; k < kFoldStates / 2; ++k) {
      key[k] = in.delta[x] * in.source[x] * shared.b[x][half + k];
    }
    const float of_skip = skip * in.source[x];
    const float value =
        kProducts && lane < kSub + kShift ? in.value[warp * kSub + lane] : 0;
    float products[kSub];
#pragma unroll
    for (int r = 0; r < kSub; ++r) {
      const int row = warp * kSub + r;
      float entry = 0;
#pragma unroll
      for (int k = 0; k < kFoldStates / 2; k += 4) {
        const float4 decay = QuadOf(&shared.decay[row][half + k]);
        const float4 c_row = QuadOf(&shared.c[row][half + k]);
        if (position < r) {
          key[k] *= decay.x;
          key[k + 1] *= decay.y;
          key[k + 2] *= decay.z;
          key[k + 3] *= decay.w;
        }
        entry = AddProducts(entry, c_row.x, key[k], c_row.y, key[k + 1]);
        entry = AddProducts(entry, c_row.z, key[k + 2], c_row.w, key[k + 3]);
      }
      entry += __shfl_xor_sync(0xffffffffu, entry, kSub);
      if (position == r) entry += of_skip;
      if (position > r) entry = 0;
      float column = 0;
#pragma unroll
      for (int d = 0; d < kTaps; ++d) {
        const int from = lane - kShift + d;
        const float tapped = __shfl_sync(0xffffffffu, entry, from & (kSub - 1));
        if (from >= 0 && from < kSub) column += taps[d] * tapped;
      }
      column *= in.row_scale[row];
      if (lane < kShift) column += shared.entries_before[warp][lane][r];
      sums[r] = Folded<kFold>(sums[r], column, weight);
      products[r] = column * value;
    }
    if (kProducts) {
      // Halves the rows of a lane while it adds up lanes: lane l ends with row
      // l / 2.
#pragma unroll
      for (int step = 0, rows = kSub; step < 4; ++step, rows /= 2) {
        const int offset = 16 >> step;
        const bool upper = (lane & offset) != 0;
#pragma unroll
        for (int r = 0; r < kSub / 2; ++r) {
          if (r < rows / 2) {
            const float send = upper ? products[r] : products[r + rows / 2];
            const float keep = upper ? products[r + rows / 2] : products[r];
            products[r] = keep + __shfl_xor_sync(0xffffffffu, send, offset);
          }
        }
      }
      const float sum =
          products[0] + __shfl_xor_sync(0xffffffffu, products[0], 1);
      if (lane % 2 == 0) shared.products[kPairs + warp][lane / 2] = sum;
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
  for (int slot = 0; slot < kOwnPairs; ++slot) {
    const int pair = slot * kWarps + warp;
    if (pair >= kPairs) continue;
    const int row = pair_rows[slot], column = pair_columns[slot];
#pragma unroll
    for (int x = 0; x < 2; ++x) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int r = row * kSub + g + e / 2 * 8;
        out[r * kDiagonalStride + column * kSub + x * 8 + 2 * t + e % 2] =
            pair_sums[slot][x][e] * factor;
      }
    }
  }
  if (lane < kSub + kShift) {
#pragma unroll
    for (int r = 0; r < kSub; ++r) {
      out[(warp * kSub + r) * kDiagonalStride + warp * kSub + lane] = sums[r];
    }
  }
}

template <ChannelFold kFold, bool kProducts>
absl::Status Launch(const Op& op, const FoldGroup& group, cudaStream_t stream) {
  constexpr int kBytes = sizeof(DiagonalMemory);
  if (cudaFuncSetAttribute(FoldDiagonal<kFold, kProducts>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                           kBytes) != cudaSuccess) {
    return CheckLaunch("SsmAttentionFold");
  }
  const dim3 grid(group.num_blocks, group.diagonal_splits);
  FoldDiagonal<kFold, kProducts><<<grid, kThreads, kBytes, stream>>>(op, group);
  return CheckLaunch("SsmAttentionFold");
}

}  // namespace

absl::Status FoldDiagonals(const Op& op, const FoldGroup& group,
                           cudaStream_t stream) {
  return WithFoldAndProducts(op.fold, group.products != nullptr,
                             [&]<ChannelFold kFold, bool kProducts>() {
                               return Launch<kFold, kProducts>(op, group,
                                                               stream);
                             });
}

}  // namespace limpid::kernels::cuda
