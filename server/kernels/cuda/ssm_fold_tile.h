// SPDX-License-Identifier: Apache-2.0
//
// What the kernels for tiles of SsmAttentionFold share: the scale of a tile,
// and the queries of a warp's rows in registers.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/mma.h"
#include "server/kernels/cuda/ssm_fold.h"
#include "server/kernels/cuda/ssm_fold_fragments.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

// A tile and the channels of a split.
struct TileShare {
  TilePlace place;
  int begin, end;

  __device__ TileShare(const FoldGroup& group, int tile, int split)
      : place(PlaceOfTile(tile)),
        begin(group.SplitBegin(split, group.tile_splits)),
        end(group.SplitBegin(split + 1, group.tile_splits)) {}
};

// S of a tile; sets gaps[channel - begin] to the sum of delta between its
// columns and its rows. S fits the largest products without the decays between,
// which only make them smaller. Called by all of kThreads threads; `bounds` has
// a number for each warp.
template <int kThreads>
__device__ float ScaleOfTile(const FoldGroup& group, const TileShare& share,
                             float* gaps, float* bounds) {
  const int tid = threadIdx.x;
  float bound = 0;
  for (int channel = share.begin + tid; channel < share.end;
       channel += kThreads) {
    float gap = 0;
#pragma unroll 4
    for (int b = share.place.column + 1; b < share.place.row; ++b) {
      gap += group.FactorsAt(channel, b).sum_delta;
    }
    gaps[channel - share.begin] = gap;
    bound = fmaxf(
        bound, group.FactorsAt(channel, share.place.row).query_bound *
                   group.FactorsAt(channel, share.place.column).columns.unit);
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    bound = fmaxf(bound, __shfl_xor_sync(0xffffffffu, bound, offset));
  }
  if (tid % 32 == 0) bounds[tid / 32] = bound;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; ++w) bound = fmaxf(bound, bounds[w]);
  // What is smaller than that is nothing beside other tiles, and units can be
  // large.
  constexpr float kMost = 0x1p60f;
  return fminf(PowerOfTwoScale(bound, 14), kMost);
}

// c of the same rows and states, which all channels share.
struct QueryStates {
  float c[2][4];

  __device__ QueryStates(const SelectiveSsm<float>& ssm, int64_t row, int t) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t i = row + 8 * h;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int64_t n = 4 * t + k;
        c[h][k] = i < ssm.num_positions && n < ssm.state_size
                      ? ssm.c[i * ssm.c_stride + n]
                      : 0.0f;
      }
    }
  }

  // Of a channel: c row_scale unit S exp(a sum of delta since the columns).
  __device__ Queries Of(const RowFactors& rows, const float* rate, float gap,
                        float scale, int row, int t) const {
    const float4 four = reinterpret_cast<const float4*>(rate)[t];
    const float rates[4] = {four.x, four.y, four.z, four.w};
    Queries out;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const RowFactor factor = rows.rows[row + 8 * h];
      const float sum = factor.sum + gap;
      const float whole = factor.scale * scale;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        out.of[h][k] = c[h][k] * whole * ExpOfLog2(rates[k] * sum);
      }
    }
    return out;
  }
};

// Writes a warp's rows row and row + 8 of a tile: columns 8 x + 2 t and the
// next one, kColumns / 8 times, from `first` on.
template <ChannelFold kFold, int kParts>
__device__ void StoreSums(const FoldGroup& group, int tile, int split, int row,
                          int first, const float (&sums)[kParts][4],
                          float unscale) {
  float* const out =
      group.tiles + (int64_t{split} * group.num_tiles() + tile) * kTile * kTile;
  const float factor =
      kFold == ChannelFold::kSumSquares ? unscale * unscale : unscale;
#pragma unroll
  for (int x = 0; x < kParts; ++x) {
    float* const at = out + row * kTile + first + 8 * x;
    *reinterpret_cast<float2*>(at) = {sums[x][0] * factor, sums[x][1] * factor};
    *reinterpret_cast<float2*>(at + 8 * kTile) = {sums[x][2] * factor,
                                                  sums[x][3] * factor};
  }
}

}  // namespace limpid::kernels::cuda
