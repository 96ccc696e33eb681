// SPDX-License-Identifier: Apache-2.0
//
// The tiles of SsmAttentionFold off the diagonal, on GPUs with wgmma (H100).
// Two groups of four warps have 64 rows by all columns each: they multiply and
// add up, in turn, so that the tensor cores have something to do. Two others
// make queries, each for every second channel, of the factors that a fifth one
// brings into shared memory: whoever begins copies waits for them a while, and
// everybody would wait for it.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/mma.h"
#include "server/kernels/cuda/ssm_fold.h"
#include "server/kernels/cuda/ssm_fold_tile.h"
#include "server/kernels/cuda/warp.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

using Op = SsmAttentionFold<float>;

constexpr int kConsumers = 256;
constexpr int kBuilders = 128;
constexpr int kBuilderGroups = 2;
constexpr int kProducers = 128;  // of which one works
constexpr int kFirstProducer = kConsumers + kBuilderGroups * kBuilders;
constexpr int kThreads = kFirstProducer + kProducers;
constexpr int kStages = 8;
constexpr int kParts = kTile / 8;

struct Stage {
  ColumnFactors columns;
  RowFactors rows;
  // Of 8 rows, as the keys of 8 columns.
  uint4 queries[kParts][4][8];
};

struct TileMemory {
  Stage stages[kStages];
  // Complete when a stage's factors have come, when its queries are made, and
  // when its readers are done. Every lane that made or read something says so
  // itself: one that spoke for its warp after __syncwarp would do, but checkers
  // of races do not follow it.
  uint64_t full[kStages], built[kStages], empty[kStages];
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

// How wgmma finds the halves of 8 states and the next 8 of rows or columns:
// matrices of 8 of them by 16 bytes without swizzle, neighbours in states the
// size of one apart, the next 8 the size of a part. Sizes and addresses count
// 16 bytes.
constexpr uint32_t kMatrixUnits = sizeof(ColumnFactors::keys[0][0]) / 16;
constexpr uint32_t kPartUnits = sizeof(ColumnFactors::keys[0]) / 16;
static_assert(sizeof(Stage::queries[0]) == sizeof(ColumnFactors::keys[0]));

__device__ uint64_t Descriptor(uint32_t address) {
  uint64_t out;
  asm("mov.b64 %0, {%1, %2};"
      : "=l"(out)
      : "r"(address | kMatrixUnits << 16), "r"(kPartUnits));
  return out;
}

using Entries = float[kParts][4];

// d [64, 128] (+)= queries [64, 16] keys [16, 128] of four warps, which have 16
// rows each. Asynchronous.
template <bool kAdd>
__device__ void Multiply(Entries& d, uint64_t queries, uint64_t keys) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, "
      "%11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, "
      "%33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
      "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, "
      "%55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, add, 1, 1, 0, 0;\n"
      "}\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]),
        "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]), "+f"(d[1][3]),
        "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]),
        "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]),
        "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]),
        "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3]),
        "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]), "+f"(d[8][3]),
        "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]),
        "+f"(d[10][0]), "+f"(d[10][1]), "+f"(d[10][2]), "+f"(d[10][3]),
        "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3]),
        "+f"(d[12][0]), "+f"(d[12][1]), "+f"(d[12][2]), "+f"(d[12][3]),
        "+f"(d[13][0]), "+f"(d[13][1]), "+f"(d[13][2]), "+f"(d[13][3]),
        "+f"(d[14][0]), "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]),
        "+f"(d[15][0]), "+f"(d[15][1]), "+f"(d[15][2]), "+f"(d[15][3])
      : "l"(queries), "l"(keys), "n"(kAdd ? 1 : 0));
}

// Begins to make the entries of 64 rows, whose queries are at `rows`, and the
// columns whose keys are at `columns`.
__device__ void BeginEntries(Entries& entries, uint32_t rows,
                             uint32_t columns) {
  const uint64_t queries = Descriptor(rows), keys = Descriptor(columns);
  const uint64_t low_queries = Descriptor(rows + 2 * kMatrixUnits);
  const uint64_t low_keys = Descriptor(columns + 2 * kMatrixUnits);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  Multiply<false>(entries, low_queries, keys);
  Multiply<true>(entries, queries, low_keys);
  Multiply<true>(entries, queries, keys);
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

__device__ void AwaitEntries(Entries& entries) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  // Not to be read before that.
#pragma unroll
  for (int x = 0; x < kParts; ++x) {
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(entries[x][e]));
  }
}

// Where a channel of the split is in the ring of stages, and whether the ring
// has come round an odd number of times.
struct Turn {
  int slot, parity = 0;
  __device__ explicit Turn(int slot) : slot(slot) {}
  __device__ void Next(int step) {
    slot += step;
    if (slot >= kStages) slot -= kStages, parity ^= 1;
  }
};

// Begins to bring the factors of a channel of the split.
__device__ void Request(const FoldGroup& group, const TileShare& share,
                        int channel, int slot, TileMemory& shared) {
  Stage& stage = shared.stages[slot];
  uint64_t* const full = &shared.full[slot];
  ExpectBytes(full, sizeof(stage.columns) + sizeof(stage.rows));
  CopyBulk(stage.columns, group.FactorsAt(channel, share.place.column).columns,
           full);
  CopyBulk(stage.rows, group.FactorsAt(channel, share.place.row).rows, full);
}

// Makes the queries of every second channel of a split.
__device__ __forceinline__ void Build(const Op& op, const TileShare& share,
                                      float scale, TileMemory& shared) {
  const SelectiveSsm<float>& ssm = op.attention.ssm;
  const int count = share.end - share.begin;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp = (WarpIndex() - kConsumers / 32) % (kBuilders / 32);
  const int first_index = (WarpIndex() - kConsumers / 32) / (kBuilders / 32);
  // A lane has four rows 8 apart, and states 4t to 4t + 3.
  constexpr int kRows = 4;
  const int first_part = kRows * warp;
  float c[kRows][4];
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    const int64_t i =
        int64_t{share.place.row} * kTile + (first_part + k) * 8 + g;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      c[k][n] = i < ssm.num_positions && 4 * t + n < ssm.state_size
                    ? ssm.c[i * ssm.c_stride + 4 * t + n]
                    : 0.0f;
    }
  }
  Turn turn(first_index);
  for (int index = first_index; index < count; index += kBuilderGroups) {
    Stage& stage = shared.stages[turn.slot];
    Wait(&shared.full[turn.slot], turn.parity);
    const ColumnFactors& columns = stage.columns;
    const float4 four = reinterpret_cast<const float4*>(columns.rate)[t];
    const float rate[4] = {four.x, four.y, four.z, four.w};
    const float gap = shared.gaps[index];
    const float in_units = scale * columns.unit;
    // Loads first: none is moved over a store, and each would wait.
    RowFactor factors[kRows];
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      factors[k] = stage.rows.rows[(first_part + k) * 8 + g];
    }
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const float sum = factors[k].sum + gap;
      const float whole = factors[k].scale * in_units;
      float query[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        query[n] = c[k][n] * whole * ExpOfLog2(rate[n] * sum);
      }
      StoreHalves(query, t, g, stage.queries[first_part + k]);
    }
    // For wgmma, which reads past what this thread sees.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    Arrive(&shared.built[turn.slot]);
    turn.Next(kBuilderGroups);
  }
}

// Makes and adds up the entries of all channels of a split.
template <ChannelFold kFold>
__device__ __forceinline__ void Consume(const FoldGroup& group,
                                        const TileShare& share, int tile,
                                        int split, float scale,
                                        TileMemory& shared) {
  const int count = share.end - share.begin;
  const int lane = threadIdx.x % 32, warp = WarpIndex();
  float sums[kParts][4];
#pragma unroll
  for (int x = 0; x < kParts; ++x) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[x][e] = EmptyFold<kFold>();
  }
  // In units of descriptors.
  constexpr uint32_t kStageUnits = sizeof(Stage) / 16;
  const uint32_t queries =
      SharedAddress(shared.stages[0].queries[warp / 4 * kParts / 2]) / 16;
  const uint32_t keys = SharedAddress(shared.stages[0].columns.keys) / 16;
  Entries entries;
  Turn turn(0);
  for (int index = 0; index < count; ++index) {
    // Who made the queries has seen the keys come.
    Wait(&shared.built[turn.slot], turn.parity);
    BeginEntries(entries, queries + turn.slot * kStageUnits,
                 keys + turn.slot * kStageUnits);
    const float weight = kFold == ChannelFold::kWeightedSumAbs
                             ? shared.stages[turn.slot].columns.weight
                             : 1.0f;
    AwaitEntries(entries);
    Arrive(&shared.empty[turn.slot]);
    turn.Next(1);
#pragma unroll
    for (int x = 0; x < kParts; ++x) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sums[x][e] = Folded<kFold>(sums[x][e], entries[x][e], weight);
      }
    }
  }
  StoreSums<kFold>(group, tile, split, warp * 16 + lane / 4, 2 * (lane % 4),
                   sums, 1 / scale);
}

template <ChannelFold kFold>
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
    InitBarrier(&shared.built[tid], kBuilders);
    InitBarrier(&shared.empty[tid], kConsumers);
  }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  __syncthreads();
  const bool requests = tid == kFirstProducer;
  const int first_end = min(share.begin + kStages, share.end);
  for (int c = share.begin; requests && c < first_end; ++c) {
    Request(group, share, c, c - share.begin, shared);
  }
  const float scale =
      ScaleOfTile<kThreads>(group, share, shared.gaps, shared.bounds);
  const int warp = WarpIndex();
  if (warp >= kFirstProducer / 32) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    Turn turn(0);
    for (int c = first_end; requests && c < share.end; ++c) {
      Wait(&shared.empty[turn.slot], turn.parity);
      Request(group, share, c, turn.slot, shared);
      turn.Next(1);
    }
  } else if (warp >= kConsumers / 32) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 80;");
    Build(op, share, scale, shared);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 144;");
    Consume<kFold>(group, share, tile, split, scale, shared);
  }
}

template <ChannelFold kFold>
absl::Status Launch(const Op& op, const FoldGroup& group, cudaStream_t stream) {
  const int channels =
      static_cast<int>(CeilDiv(group.num_channels, group.tile_splits));
  const int bytes =
      static_cast<int>(sizeof(TileMemory) + channels * sizeof(float));
  return LaunchWithSharedMemory(
      "SsmAttentionFold", Fold<kFold>,
      dim3(group.num_tiles(), group.tile_splits, group.num_sequences), kThreads,
      bytes, stream, op, group);
}

}  // namespace

absl::Status FoldTilesOnHopper(const Op& op, const FoldGroup& group,
                               cudaStream_t stream) {
  return WithFold(op.fold, [&]<ChannelFold kFold>() {
    return Launch<kFold>(op, group, stream);
  });
}

}  // namespace limpid::kernels::cuda
