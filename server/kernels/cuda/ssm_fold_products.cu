// SPDX-License-Identifier: Apache-2.0
//
// What SsmAttentionFold gives to the products: that of the diagonal part, and
// of the blocks before, which carry a state:
//   carried_{J+1}[n] = exp(a_n sum of delta in block J) carried_J[n]
//                      + sum in J of K[j, n] value[j],
//   of the blocks before I = sum_n Q[i, n] carried_I[n].
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/mma.h"
#include "server/kernels/cuda/ssm_fold.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

using Op = SsmAttentionFold<float>;

// A thread has a row of the block; all of them take the same channels one after
// the other.
constexpr int kThreads = kTile;
constexpr int kChannels = 16;
constexpr int kQuads = kFoldStates / 4;

struct ProductMemory {
  float4 carried[kChannels][kQuads];
  float4 rate[kChannels][kQuads];
  // One number more, so that rows are in different banks.
  float c[kTile][kFoldStates + 1];
  float products[kTile][kChannels + 1];
};

// Adds what the blocks before `block` give to the products of the thread's row;
// all threads must come here.
__device__ __forceinline__ void AddCarried(const Op& op, const FoldGroup& group,
                                           int block, int first, int count,
                                           int row, ProductMemory& shared,
                                           float (&products)[kChannels]) {
  const SelectiveSsm<float>& ssm = op.attention.ssm;
  // On their way before anything waits.
  RowFactor factors[kChannels];
#pragma unroll
  for (int k = 0; k < kChannels; ++k) {
    const int channel = first + min(k, count - 1);
    factors[k] = group.FactorsAt(channel, block).rows.rows[row];
  }
  // Channels past the last one repeat it.
  for (int at = threadIdx.x; at < kChannels * kQuads; at += kThreads) {
    const int k = at / kQuads, quad = at % kQuads;
    const int channel = first + min(k, count - 1);
    float4 carried = {};
    const float4 rate = reinterpret_cast<const float4*>(
        group.FactorsAt(channel, block).columns.rate)[quad];
#pragma unroll 4
    for (int b = 0; b < block; ++b) {
      const BlockFactors& factors = group.FactorsAt(channel, b);
      const ColumnFactors& columns = factors.columns;
      const float sum = factors.sum_delta, unit = columns.unit;
      const float4 upper = columns.value_keys[0][quad];
      const float4 lower = columns.value_keys[1][quad];
      carried.x =
          fmaf(carried.x, ExpOfLog2(rate.x * sum), (upper.x + lower.x) * unit);
      carried.y =
          fmaf(carried.y, ExpOfLog2(rate.y * sum), (upper.y + lower.y) * unit);
      carried.z =
          fmaf(carried.z, ExpOfLog2(rate.z * sum), (upper.z + lower.z) * unit);
      carried.w =
          fmaf(carried.w, ExpOfLog2(rate.w * sum), (upper.w + lower.w) * unit);
    }
    shared.carried[k][quad] = carried;
    shared.rate[k][quad] = rate;
  }
#pragma unroll
  for (int k = 0; k < kFoldStates; ++k) {
    const int at = k * kThreads + threadIdx.x, r = at / kFoldStates;
    const int n = at % kFoldStates;
    const int64_t position = int64_t{block} * kTile + r;
    shared.c[r][n] = position < ssm.num_positions && n < ssm.state_size
                         ? ssm.c[position * ssm.c_stride + n]
                         : 0.0f;
  }
  __syncthreads();
  float c[kFoldStates];
#pragma unroll
  for (int n = 0; n < kFoldStates; ++n) c[n] = shared.c[row][n];
#pragma unroll
  for (int k = 0; k < kChannels; ++k) {
    float sum = 0;
#pragma unroll
    for (int quad = 0; quad < kQuads; ++quad) {
      const float4 rate = shared.rate[k][quad];
      const float4 carried = shared.carried[k][quad];
      const float* const of_row = c + 4 * quad;
      const float delta = factors[k].sum;
      sum = fmaf(of_row[0] * carried.x, ExpOfLog2(rate.x * delta), sum);
      sum = fmaf(of_row[1] * carried.y, ExpOfLog2(rate.y * delta), sum);
      sum = fmaf(of_row[2] * carried.z, ExpOfLog2(rate.z * delta), sum);
      sum = fmaf(of_row[3] * carried.w, ExpOfLog2(rate.w * delta), sum);
    }
    products[k] = fmaf(sum, factors[k].scale, products[k]);
  }
}

// As many blocks as there usually are should be on their way at once.
__global__ void __launch_bounds__(kThreads, 6)
    CarryProducts(Op op, FoldGroup group) {
  __shared__ ProductMemory shared;
  op = SequenceOf(op, blockIdx.z);
  group = SequenceOf(group, blockIdx.z);
  const SelectiveSsm<float>& ssm = op.attention.ssm;
  const int first = blockIdx.x * kChannels;
  const int count = min(kChannels, group.num_channels - first);
  const int block = blockIdx.y;
  const int64_t begin = int64_t{block} * kTile;
  const int rows =
      static_cast<int>(min(int64_t{kTile}, ssm.num_positions - begin));
  // Rows past the last one repeat it and write nothing; so do channels.
  const int row = min(static_cast<int>(threadIdx.x), rows - 1);
  float products[kChannels];
#pragma unroll
  for (int k = 0; k < kChannels; ++k) {
    products[k] = group.ProductsOf(first + min(k, count - 1), block)[row];
  }
  if (block > 0)
    AddCarried(op, group, block, first, count, row, shared, products);
#pragma unroll
  for (int k = 0; k < kChannels; ++k) {
    shared.products[threadIdx.x][k] = products[k];
  }
  __syncthreads();
  for (int at = threadIdx.x; at < rows * kChannels; at += kThreads) {
    const int r = at / kChannels, k = at % kChannels;
    if (k >= count) continue;
    op.product[(begin + r) * ssm.num_channels + group.channel_begin + first +
               k] = shared.products[r][k];
  }
}

}  // namespace

absl::Status FoldProducts(const Op& op, const FoldGroup& group,
                          cudaStream_t stream) {
  const dim3 grid(CeilDiv(group.num_channels, kChannels), group.num_blocks,
                  group.num_sequences);
  CarryProducts<<<grid, kThreads, 0, stream>>>(op, group);
  return CheckLaunch("SsmAttentionFold");
}

}  // namespace limpid::kernels::cuda
