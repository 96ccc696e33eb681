// SPDX-License-Identifier: Apache-2.0
//
// The tiles of SsmAttentionFold off the diagonal, on GPUs with wgmma (H100).
// Two groups of four warps have 64 rows by all columns each; a third one gives
// its registers to them and brings the factors of the next channels into shared
// memory.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/mma.h"
#include "server/kernels/cuda/ssm_fold.h"
#include "server/kernels/cuda/ssm_fold_tile.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

using Op = SsmAttentionFold<float>;

constexpr int kConsumers = 256;
constexpr int kThreads = kConsumers + 128;
constexpr int kStages = 10;
// The columns are multiplied in two halves: while the entries of one are added
// up, those of the other are made.
constexpr int kHalfParts = kTile / 2 / 8;

struct Stage {
  ColumnFactors columns;
  RowFactors rows;
};

struct TileMemory {
  Stage stages[kStages];
  // Complete when a stage's factors have come, and when its readers are done.
  uint64_t full[kStages], empty[kStages];
  float bounds[kThreads / 32];
  float gaps[1];  // of every channel of the split
};

__device__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ void InitBarrier(uint64_t* barrier, int arrivals) {
  asm volatile(
      "mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(arrivals)
      : "memory");
}

__device__ void Arrive(uint64_t* barrier) {
  asm volatile(
      "mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier))
      : "memory");
}

// Whether the phase of the given parity is complete, as soon as it is or a
// while later.
__device__ bool TryWait(uint64_t* barrier, int parity) {
  int done;
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.b32 %0, 1, 0, done;\n"
      "}\n"
      : "=r"(done)
      : "r"(SharedAddress(barrier)), "r"(parity)
      : "memory");
  return done != 0;
}

__device__ void Wait(uint64_t* barrier, int parity) {
  while (!TryWait(barrier, parity)) {
  }
}

__device__ void ExpectBytes(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                   SharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}

template <typename T>
__device__ void CopyBulk(T& to, const T& from, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
      "[%1], %2, [%3];" ::"r"(SharedAddress(&to)),
      "l"(&from), "r"(static_cast<int>(sizeof(T))), "r"(SharedAddress(barrier))
      : "memory");
}

// How wgmma finds the halves of 8 states and the next 8 of 64 columns: matrices
// of 8 columns by 16 bytes without swizzle, neighbours in states the size of
// one apart and in columns the size of a part. Sizes and addresses count 16
// bytes.
constexpr uint32_t kMatrixUnits = sizeof(ColumnFactors::keys[0][0]) / 16;
constexpr uint32_t kPartUnits = sizeof(ColumnFactors::keys[0]) / 16;
constexpr uint32_t kStageUnits = sizeof(Stage) / 16;

__device__ uint64_t KeyDescriptor(uint32_t address) {
  uint64_t out;
  asm("mov.b64 %0, {%1, %2};"
      : "=l"(out)
      : "r"(address | kMatrixUnits << 16), "r"(kPartUnits));
  return out;
}

using Entries = float[kHalfParts][4];

// d [64, 64] (+)= a [64, 16] keys [16, 64] of four warps, which have 16 rows
// each. Asynchronous.
template <bool kAdd>
__device__ void Multiply(Entries& d, const uint32_t (&a)[4], uint64_t keys) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, "
      "%15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "
      "%28, %29, %30, %31}, {%32, %33, %34, %35}, %36, add, 1, 1, 0;\n"
      "}\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]),
        "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]), "+f"(d[1][3]),
        "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]),
        "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]),
        "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]),
        "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(keys),
        "n"(kAdd ? 1 : 0));
}

// Begins to make the entries of half of the columns, whose keys are at
// `address`.
__device__ void BeginEntries(Entries& entries, const LeftHalves& left,
                             uint32_t address) {
  const uint64_t high = KeyDescriptor(address);
  Multiply<false>(entries, left.low, high);
  Multiply<true>(entries, left.high, KeyDescriptor(address + 2 * kMatrixUnits));
  Multiply<true>(entries, left.high, high);
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until all but the last kLater of what was begun is there.
template <int kLater>
__device__ void AwaitEntries(Entries& entries) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLater) : "memory");
  // Not to be read before that.
#pragma unroll
  for (int x = 0; x < kHalfParts; ++x) {
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(entries[x][e]));
  }
}

// Brings the factors of all channels of a split, one after the other.
__device__ void Produce(const FoldGroup& group, const TileShare& share,
                        TileMemory& shared) {
  int slot = 0, parity = 1;
  for (int channel = share.begin; channel < share.end; ++channel) {
    if (channel >= share.begin + kStages) Wait(&shared.empty[slot], parity);
    ExpectBytes(&shared.full[slot], sizeof(Stage));
    Stage& stage = shared.stages[slot];
    CopyBulk(stage.columns,
             group.FactorsAt(channel, share.place.column).columns,
             &shared.full[slot]);
    CopyBulk(stage.rows, group.FactorsAt(channel, share.place.row).rows,
             &shared.full[slot]);
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
}

// Makes and adds up the entries of all channels of a split.
template <ChannelFold kFold, bool kProducts>
__device__ __forceinline__ void Consume(const Op& op, const FoldGroup& group,
                                        const TileShare& share, int tile,
                                        int split, float scale,
                                        TileMemory& shared) {
  const int tid = threadIdx.x;
  const float unscale = 1 / scale;
  const int count = share.end - share.begin;
  const int lane = tid % 32, t = lane % 4;
  const int row = tid / 32 * 16 + lane / 4;
  const QueryStates states(op.attention.ssm,
                           int64_t{share.place.row} * kTile + row, t);
  const auto queries = [&](int index, const Stage& stage) {
    return states.Of(stage.rows, stage.columns.rate, shared.gaps[index],
                     scale * stage.columns.unit, row, t);
  };
  float sums[2][kHalfParts][4], products[2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int x = 0; x < kHalfParts; ++x) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[half][x][e] = EmptyFold<kFold>();
    }
  }
  const auto add = [&](const Entries& entries, int half,
                       const ColumnFactors& columns) {
#pragma unroll
    for (int x = 0; x < kHalfParts; x += 2) {
      const float4 values = columns.value[half * kHalfParts / 2 + x / 2][t];
      const float2 value[2] = {{values.x, values.y}, {values.z, values.w}};
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        const float(&four)[4] = entries[x + p];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float& sum = sums[half][x + p][e];
          sum = Folded<kFold>(sum, four[e], columns.weight);
        }
        if (kProducts) {
          products[0] = AddProducts(products[0], four[0], value[p].x, four[1],
                                    value[p].y);
          products[1] = AddProducts(products[1], four[2], value[p].x, four[3],
                                    value[p].y);
        }
      }
    }
    // To be done by now, while the tensor cores are busy with the other half.
#pragma unroll
    for (int x = 0; x < kHalfParts; ++x) {
#pragma unroll
      for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(sums[half][x][e]));
    }
    asm volatile("" : "+f"(products[0]), "+f"(products[1]));
  };

  const uint32_t keys = SharedAddress(shared.stages[0].columns.keys) / 16;
  float* product =
      group.products +
      group.ProductsAt(share.begin, share.place.column, share.place.row) + row;
  const int64_t next_product = group.ProductsAt(1, 0, 0);
  // Sums over the lanes of a row, of the channel before.
  const auto store_products = [&](const float(&of)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = of[h];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      if (t == 0) product[8 * h] = sum * unscale;
    }
    product += next_product;
  };
  Wait(&shared.full[0], 0);
  Queries query = queries(0, shared.stages[0]);
  int slot = 0, parity = 0;
  for (int index = 0; index < count; ++index) {
    const Stage& stage = shared.stages[slot];
    uint64_t* const empty = &shared.empty[slot];
    // Registers that are multiplied may be set only while nothing is.
#pragma unroll
    for (int e = 0; e < 8; ++e) asm volatile("" : "+f"(query.of[e / 4][e % 4]));
    const LeftHalves left = query.Halves();
    Entries first, second;
    const uint32_t address = keys + slot * kStageUnits;
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    BeginEntries(first, left, address);
    BeginEntries(second, left, address + kHalfParts * kPartUnits);
    if (++slot == kStages) slot = 0, parity ^= 1;
    const bool more = index + 1 < count;
    const bool there = !more || TryWait(&shared.full[slot], parity);
    if (kProducts && index > 0) store_products(products);
    products[0] = products[1] = 0;
    if (!there) Wait(&shared.full[slot], parity);
    if (more) query = queries(index + 1, shared.stages[slot]);
    AwaitEntries<1>(first);
    add(first, 0, stage.columns);
    AwaitEntries<0>(second);
    add(second, 1, stage.columns);
    __syncwarp();
    if (lane == 0) Arrive(empty);
  }
  if (kProducts) store_products(products);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    StoreSums<kFold>(group, tile, split, row, half * kTile / 2 + 2 * t,
                     sums[half], unscale);
  }
}

template <ChannelFold kFold, bool kProducts>
__global__ void __launch_bounds__(kThreads, 1) Fold(Op op, FoldGroup group) {
  op = SequenceOf(op, blockIdx.z);
  group = SequenceOf(group, blockIdx.z);
  extern __shared__ __align__(128) unsigned char memory[];
  TileMemory& shared = *reinterpret_cast<TileMemory*>(memory);
  const int tid = threadIdx.x;
  const int tile = blockIdx.x, split = blockIdx.y;
  const TileShare share(group, tile, split);
  if (tid < kStages) {
    InitBarrier(&shared.full[tid], 1);
    InitBarrier(&shared.empty[tid], kConsumers / 32);
  }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  const float scale =
      ScaleOfTile<kThreads>(group, share, shared.gaps, shared.bounds);
  if (tid >= kConsumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (tid == kConsumers) Produce(group, share, shared);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    Consume<kFold, kProducts>(op, group, share, tile, split, scale, shared);
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

absl::Status FoldTilesOnHopper(const Op& op, const FoldGroup& group,
                               cudaStream_t stream) {
  return WithFoldAndProducts(op.fold, group.products != nullptr,
                             [&]<ChannelFold kFold, bool kProducts>() {
                               return Launch<kFold, kProducts>(op, group,
                                                               stream);
                             });
}

}  // namespace limpid::kernels::cuda
