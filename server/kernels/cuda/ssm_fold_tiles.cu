// SPDX-License-Identifier: Apache-2.0
//
// The tiles of SsmAttentionFold off the diagonal, by mma.sync. Eight warps have
// 32 rows by 64 columns each.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cuda/async_copy.h"
#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/mma.h"
#include "server/kernels/cuda/ssm_fold.h"
#include "server/kernels/cuda/ssm_fold_tile.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

using Op = SsmAttentionFold<float>;

constexpr int kThreads = 256;
// Channels whose factors are on their way into shared memory.
constexpr int kStages = 3;

struct Stage {
  ColumnFactors columns;
  RowFactors rows;
};

struct TileMemory {
  Stage stages[kStages];
  // Of the last channel and the one before, for either half of the columns.
  float products[2][2][kTile];
  float bounds[kThreads / 32];
  float gaps[1];  // of every channel of the split
};

// By all threads, 16 bytes at a time.
template <typename T>
__device__ void CopyAsync(T& to, const T& from) {
  for (int at = threadIdx.x; at < static_cast<int>(sizeof(T) / 16);
       at += kThreads) {
    CopyQuadAsync(reinterpret_cast<uint4*>(&to) + at,
                  reinterpret_cast<const uint4*>(&from) + at);
  }
}

// The keys of 8 columns as a warp multiplies with them: of lane 4 g + t states
// 2t, 2t + 1, then 2t + 8, 2t + 9 of column g, high halves and then low ones.
__device__ uint4 LoadKeys(const uint4 (&keys)[4][8], int lane) {
  const uint32_t address = static_cast<uint32_t>(
      __cvta_generic_to_shared(&keys[lane / 8][lane % 8]));
  uint4 out;
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w)
      : "r"(address)
      : "memory");
  return out;
}

template <ChannelFold kFold, bool kProducts>
__global__ void __launch_bounds__(kThreads, 2) Fold(Op op, FoldGroup group) {
  op = SequenceOf(op, blockIdx.z);
  group = SequenceOf(group, blockIdx.z);
  extern __shared__ __align__(128) unsigned char memory[];
  TileMemory& shared = *reinterpret_cast<TileMemory*>(memory);
  const int tid = threadIdx.x;
  const int tile = blockIdx.x, split = blockIdx.y;
  const TileShare share(group, tile, split);
  const float scale =
      ScaleOfTile<kThreads>(group, share, shared.gaps, shared.bounds);
  const float unscale = 1 / scale;

  const auto load = [&](int channel) {
    if (channel < share.end) {
      Stage& stage = shared.stages[(channel - share.begin) % kStages];
      CopyAsync(stage.columns,
                group.FactorsAt(channel, share.place.column).columns);
      CopyAsync(stage.rows, group.FactorsAt(channel, share.place.row).rows);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  const auto store_products = [&](int channel) {
    if (kProducts && tid < kTile) {
      const float(&halves)[2][kTile] = shared.products[channel % 2];
      group.products[group.ProductsAt(channel, share.place.column,
                                      share.place.row) +
                     tid] = (halves[0][tid] + halves[1][tid]) * unscale;
    }
  };

  const int lane = tid % 32, warp = tid / 32;
  const int g = lane / 4, t = lane % 4;
  const int warp_column = warp % 2;
  const int row = warp / 2 * 32 + g;
  const int64_t first_row = int64_t{share.place.row} * kTile + row;
  const QueryStates states[2] = {{op.attention.ssm, first_row, t},
                                 {op.attention.ssm, first_row + 16, t}};
  float sums[2][8][4];
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int x = 0; x < 8; ++x) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[m][x][e] = EmptyFold<kFold>();
    }
  }
  for (int k = 0; k < kStages - 1; ++k) load(share.begin + k);
  for (int channel = share.begin; channel < share.end; ++channel) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncthreads();
    load(channel + kStages - 1);
    if (channel > share.begin) store_products(channel - 1);

    const int index = channel - share.begin;
    const Stage& stage = shared.stages[index % kStages];
    const float weight = stage.columns.weight;
    LeftHalves left[2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      left[m] = states[m]
                    .Of(stage.rows, stage.columns.rate, shared.gaps[index],
                        scale * stage.columns.unit, row + 16 * m, t)
                    .Halves();
    }
    float products[2][2] = {};
#pragma unroll
    for (int x = 0; x < 8; ++x) {
      const uint4 key = LoadKeys(stage.columns.keys[warp_column * 8 + x], lane);
      float2 value = {0, 0};
      if (kProducts) {
        const float4& both = stage.columns.value[warp_column * 4 + x / 2][t];
        value = x % 2 == 0 ? float2{both.x, both.y} : float2{both.z, both.w};
      }
      float entries[2][4] = {};
      // Either product waits for the one before it, but not for the other's.
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        MultiplyHalves(entries[m], left[m].low, key.x, key.y);
      }
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        MultiplyHalves(entries[m], left[m].high, key.z, key.w);
      }
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        MultiplyHalves(entries[m], left[m].high, key.x, key.y);
      }
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sums[m][x][e] = Folded<kFold>(sums[m][x][e], entries[m][e], weight);
        }
        if (kProducts) {
          products[m][0] = AddProducts(products[m][0], entries[m][0], value.x,
                                       entries[m][1], value.y);
          products[m][1] = AddProducts(products[m][1], entries[m][2], value.x,
                                       entries[m][3], value.y);
        }
      }
    }
    if (kProducts) {
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float sum = products[m][h];
          sum += __shfl_xor_sync(0xffffffffu, sum, 1);
          sum += __shfl_xor_sync(0xffffffffu, sum, 2);
          if (t == 0) {
            shared.products[channel % 2][warp_column][row + m * 16 + h * 8] =
                sum;
          }
        }
      }
    }
  }
  __syncthreads();
  if (share.end > share.begin) store_products(share.end - 1);

#pragma unroll
  for (int m = 0; m < 2; ++m) {
    StoreSums<kFold>(group, tile, split, row + 16 * m, warp_column * 64 + 2 * t,
                     sums[m], unscale);
  }
}

template <ChannelFold kFold, bool kProducts>
absl::Status Launch(const Op& op, const FoldGroup& group, cudaStream_t stream) {
  const int channels =
      static_cast<int>(CeilDiv(group.num_channels, group.tile_splits));
  const int bytes =
      static_cast<int>(sizeof(TileMemory) + channels * sizeof(float));
  return LaunchWithSharedMemory(
      "SsmAttentionFold", Fold<kFold, kProducts>,
      dim3(group.num_tiles(), group.tile_splits, group.num_sequences), kThreads,
      bytes, stream, op, group);
}

}  // namespace

absl::Status FoldTiles(const Op& op, const FoldGroup& group,
                       cudaStream_t stream) {
  return WithFoldAndProducts(op.fold, group.products != nullptr,
                             [&]<ChannelFold kFold, bool kProducts>() {
                               return Launch<kFold, kProducts>(op, group,
                                                               stream);
                             });
}

}  // namespace limpid::kernels::cuda
