// SPDX-License-Identifier: Apache-2.0
//
// SsmAttentionFold: factors of all blocks, the tiles off the diagonal and what
// joins them. See ssm_fold.h for the formulas.
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
// Channels whose factors are on their way into shared memory.
constexpr int kStages = 3;
// Channels whose scales between blocks are made at once.
constexpr int kScaleTable = 64;

using Op = SsmAttentionFold<float>;

// Channels whose factors a block builds, and threads that do it: four per
// channel for either factor, with four states each: 2t, 2t + 1, 2t + 8 and 2t +
// 9, which a lane of a fragment has.
constexpr int kBuildChannels = 16;
constexpr int kLaneStates = 4;
constexpr int kBuildThreads = 2 * kBuildChannels * kFoldStates / kLaneStates;

// Inputs of a block of positions and of the kShift before it; those outside of
// the sequence are zeros.
struct BuildMemory {
  float delta[kDiagonal][kBuildChannels];
  float source[kDiagonal][kBuildChannels];
  float row_scale[kTile][kBuildChannels];
  float b[kDiagonal][kFoldStates];
  float c[kTile][kFoldStates];
};

// out[x][k] = from[position begin + x, first + k], or `missing` where `from` is
// null. What does not exist is loaded from elsewhere and put aside, so that all
// loads are on their way at once.
template <int kRows, int kColumns>
__device__ void LoadRows(float (&out)[kRows][kColumns], const float* from,
                         int64_t stride, int64_t begin, int64_t length,
                         int64_t first, int64_t count, float missing) {
  constexpr int kStep = kBuildThreads / kColumns;
  const int k = threadIdx.x % kColumns;
  const int64_t column = first + min(int64_t{k}, count - 1);
#pragma unroll
  for (int x = threadIdx.x / kColumns, step = 0; step * kStep < kRows;
       x += kStep, ++step) {
    const int64_t p = begin + x;
    const int64_t at = min(max(p, int64_t{0}), length - 1);
    const float number =
        from == nullptr ? missing : __ldg(from + at * stride + column);
    if (x < kRows) out[x][k] = p == at && k < count ? number : 0.0f;
  }
}

// Of states 2t and 2t + 1, then of 2t + 8 and 2t + 9.
__device__ void LoadLane(const float* states, int t,
                         float (&out)[kLaneStates]) {
  const float2 first = *reinterpret_cast<const float2*>(states + 2 * t);
  const float2 second = *reinterpret_cast<const float2*>(states + 2 * t + 8);
  out[0] = first.x;
  out[1] = first.y;
  out[2] = second.x;
  out[3] = second.y;
}
__device__ int StateOfLane(int t, int k) { return 2 * t + k % 2 + k / 2 * 8; }

__device__ void BuildKeys(const BuildMemory& in, const float (&taps)[kTaps],
                          int channel, int t, const float (&a)[kLaneStates],
                          BlockFactors& out) {
  float sum_taps = 0;
#pragma unroll
  for (int d = 0; d < kTaps; ++d) sum_taps += fabsf(taps[d]);
  float bound[kLaneStates] = {}, scale[kLaneStates];
#pragma unroll 4
  for (int w = 0; w < kDiagonal; ++w) {
    float b[kLaneStates];
    LoadLane(in.b[w], t, b);
    const float input = in.delta[w][channel] * in.source[w][channel];
#pragma unroll
    for (int k = 0; k < kLaneStates; ++k) {
      bound[k] = fmaxf(bound[k], fabsf(input * b[k]));
    }
  }
#pragma unroll
  for (int k = 0; k < kLaneStates; ++k) {
    bound[k] *= sum_taps;
    scale[k] = PowerOfTwoScale(bound[k], 13);
    out.key_unscale[StateOfLane(t, k)] = 1 / scale[k];
    out.key_bound[StateOfLane(t, k)] = bound[k];
  }

  float sum = 0;
  float after[kShift][kLaneStates] = {};  // keys at the next positions
#pragma unroll 4
  for (int w = kDiagonal - 1; w >= 0; --w) {
    float b[kLaneStates], columns[kLaneStates];
    LoadLane(in.b[w], t, b);
    const float delta = in.delta[w][channel];
    const float input = delta * in.source[w][channel];
#pragma unroll
    for (int k = 0; k < kLaneStates; ++k) {
      const float key = input * b[k] * ExpOfLog2(a[k] * sum);
      float column = taps[0] * key;
#pragma unroll
      for (int d = 1; d < kTaps; ++d) column += taps[d] * after[d - 1][k];
#pragma unroll
      for (int d = kShift - 1; d > 0; --d) after[d][k] = after[d - 1][k];
      after[0][k] = key;
      columns[k] = column * scale[k];
    }
    sum += delta;
    if (w < kTile) {
      const HalfPairs first = Split(columns[0], columns[1]);
      const HalfPairs second = Split(columns[2], columns[3]);
      out.key[w / 8][w % 8 * 4 + t] = {first.high, second.high, first.low,
                                       second.low};
    }
  }
}

__device__ void BuildQueries(const BuildMemory& in, int channel, int t,
                             const float (&a)[kLaneStates], BlockFactors& out) {
  float sum = 0;
  float most[kLaneStates] = {}, bound[kLaneStates] = {};
  // A fragment has rows g and g + 8 side by side.
  float above[8][kLaneStates];
#pragma unroll 1
  for (int part = 0; part < kTile / 16; ++part) {
#pragma unroll
    for (int r = 0; r < 16; ++r) {
      const int row = part * 16 + r;
      float c[kLaneStates], query[kLaneStates];
      LoadLane(in.c[row], t, c);
      sum += in.delta[row + kShift][channel];
      const float row_scale = in.row_scale[row][channel];
#pragma unroll
      for (int k = 0; k < kLaneStates; ++k) {
        const float whole = c[k] * row_scale;
        query[k] = whole * ExpOfLog2(a[k] * sum);
        most[k] = fmaxf(most[k], fabsf(query[k]));
        bound[k] = fmaxf(bound[k], fabsf(whole));
        if (r < 8) above[r % 8][k] = query[k];
      }
      if (r < 8) continue;
      const int lane = r % 8 * 4 + t;
      const float(&upper)[kLaneStates] = above[r % 8];
      out.query[part][0][lane] = {upper[0], upper[1], query[0], query[1]};
      out.query[part][1][lane] = {upper[2], upper[3], query[2], query[3]};
    }
  }
#pragma unroll
  for (int k = 0; k < kLaneStates; ++k) {
    out.query_most[StateOfLane(t, k)] = most[k];
    out.query_bound[StateOfLane(t, k)] = bound[k];
  }
  if (t == 0) out.sum_delta[0] = sum;
}

__global__ void __launch_bounds__(kBuildThreads)
    BuildFactors(Op op, FoldGroup group) {
  __shared__ BuildMemory in;
  const SsmAttention<float>& attention = op.attention;
  const SelectiveSsm<float>& ssm = attention.ssm;
  const int64_t length = ssm.num_positions;
  const int64_t begin = int64_t{blockIdx.y} * kTile;
  const int first = blockIdx.x * kBuildChannels;
  const int64_t first_channel = group.channel_begin + first;
  const int64_t count = group.num_channels - first;
  LoadRows(in.delta, ssm.delta, ssm.delta_stride, begin - kShift, length,
           first_channel, count, 0);
  LoadRows(in.source, attention.source_scale, attention.source_stride,
           begin - kShift, length, first_channel, count, 1);
  LoadRows(in.row_scale, attention.row_scale, attention.row_stride, begin,
           length, first_channel, count, 1);
  LoadRows(in.b, ssm.b, ssm.b_stride, begin - kShift, length, 0, ssm.state_size,
           0);
  LoadRows(in.c, ssm.c, ssm.c_stride, begin, length, 0, ssm.state_size, 0);
  __syncthreads();

  const int t = threadIdx.x % kLaneStates;
  const int channel = threadIdx.x / kLaneStates % kBuildChannels;
  if (channel >= count) return;
  const int64_t c = first_channel + channel;
  float a[kLaneStates];
#pragma unroll
  for (int k = 0; k < kLaneStates; ++k) {
    const int n = StateOfLane(t, k);
    a[k] = n < ssm.state_size ? ssm.a[c * ssm.state_size + n] * kLog2E : 0.0f;
  }
  BlockFactors& out =
      group.factors[int64_t{first + channel} * group.num_blocks + blockIdx.y];
  if (threadIdx.x < kBuildThreads / 2) {
    float taps[kTaps];
    LoadTaps(attention.conv_weight, attention.conv_width, c, taps);
    BuildKeys(in, taps, channel, t, a, out);
    return;
  }
  BuildQueries(in, channel, t, a, out);
  if (group.products == nullptr) return;
#pragma unroll 8
  for (int w = t; w < kTile; w += kLaneStates) {
    const int64_t j = begin - kShift + w;
    const int64_t at = min(max(j, int64_t{0}), length - 1);
    const float value = __ldg(op.value + at * op.value_stride + c);
    out.value[w] = j == at ? value : 0.0f;
  }
}

// What of a block's factors is copied to shared memory for one channel.
struct Stage {
  uint4 key[kTile / 8][32];
  float4 query[kTile / 16][2][32];
  float value[kTile];
};

struct TileMemory {
  Stage stages[kStages];
  float scales[kScaleTable][kFoldStates];
  // Of the last channel and the one before, for either half of the columns.
  float products[2][2][kTile];
  float bounds[kThreads / 32];
};

__device__ void CopyAsync(void* to, const void* from) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address),
               "l"(from)
               : "memory");
}

// A tile [kTile, kTile] of rows of block `row` and columns of block `column`.
// Eight warps have 32 rows by 64 columns each.
template <ChannelFold kFold, bool kProducts>
__global__ void __launch_bounds__(kThreads, 2)
    FoldTiles(Op op, FoldGroup group) {
  extern __shared__ __align__(16) unsigned char memory[];
  TileMemory& shared = *reinterpret_cast<TileMemory*>(memory);
  const int tid = threadIdx.x;
  const int tile = blockIdx.x;
  const int split = blockIdx.y;
  const TilePlace place = PlaceOfTile(tile);
  const int row = place.row, column = place.column;
  const int begin = group.SplitBegin(split, group.tile_splits);
  const int end = group.SplitBegin(split + 1, group.tile_splits);
  const auto factors = [&](int channel, int block) -> const BlockFactors& {
    return group.factors[int64_t{channel} * group.num_blocks + block];
  };
  // |Q exp(a gap) / scale of K|: what S has to fit.
  const auto reach = [&](int channel, int n, float most) {
    float gap = 0;
    for (int b = column + 1; b < row; ++b) {
      gap += factors(channel, b).sum_delta[0];
    }
    const SelectiveSsm<float>& ssm = op.attention.ssm;
    const float a =
        n < ssm.state_size
            ? ssm.a[(group.channel_begin + channel) * ssm.state_size + n] *
                  kLog2E
            : 0.0f;
    return most * ExpOfLog2(a * gap) * factors(channel, column).key_unscale[n];
  };
  float bound = 0;
  for (int at = begin * kFoldStates + tid; at < end * kFoldStates;
       at += kThreads) {
    const int channel = at / kFoldStates, n = at % kFoldStates;
    bound =
        fmaxf(bound, reach(channel, n, factors(channel, row).query_most[n]));
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    bound = fmaxf(bound, __shfl_xor_sync(0xffffffffu, bound, offset));
  }
  if (tid % 32 == 0) shared.bounds[tid / 32] = bound;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; ++w) {
    bound = fmaxf(bound, shared.bounds[w]);
  }
  const float scale = PowerOfTwoScale(bound, 14);
  const float unscale = 1 / scale;

  const auto load = [&](int channel) {
    if (channel < end) {
      Stage& stage = shared.stages[(channel - begin) % kStages];
      const BlockFactors& keys = factors(channel, column);
      const BlockFactors& queries = factors(channel, row);
#pragma unroll
      for (int k = 0; k < kTile * 4 / kThreads; ++k) {
        const int at = k * kThreads + tid;
        CopyAsync(&stage.key[0][0] + at, &keys.key[0][0] + at);
        CopyAsync(&stage.query[0][0][0] + at, &queries.query[0][0][0] + at);
      }
      if (kProducts && tid < kTile / 4) {
        CopyAsync(stage.value + 4 * tid, keys.value + 4 * tid);
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  const auto store_products = [&](int channel) {
    if (kProducts && tid < kTile) {
      const float(&halves)[2][kTile] = shared.products[channel % 2];
      group.products[group.ProductsAt(channel, column, row) + tid] =
          (halves[0][tid] + halves[1][tid]) * unscale;
    }
  };

  const int lane = tid % 32, warp = tid / 32;
  const int g = lane / 4, t = lane % 4;
  const int warp_row = warp / 2, warp_column = warp % 2;
  float sums[2][8][4];
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int x = 0; x < 8; ++x) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[m][x][e] = EmptyFold<kFold>();
    }
  }
  for (int k = 0; k < kStages - 1; ++k) load(begin + k);
  for (int channel = begin; channel < end; ++channel) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncthreads();
    load(channel + kStages - 1);
    if (channel > begin) store_products(channel - 1);
    const int in_table = (channel - begin) % kScaleTable;
    if (in_table == 0) {
      for (int at = tid; at < kScaleTable * kFoldStates; at += kThreads) {
        const int n = at % kFoldStates;
        const int which = channel + at / kFoldStates;
        shared.scales[at / kFoldStates][n] =
            which < end ? reach(which, n, scale) : 0.0f;
      }
      __syncthreads();
    }

    const Stage& stage = shared.stages[(channel - begin) % kStages];
    const float weight = kFold == ChannelFold::kWeightedSumAbs
                             ? op.weight[group.channel_begin + channel]
                             : 1.0f;
    const float(&scales)[kFoldStates] = shared.scales[in_table];
    const float own_scales[4] = {scales[2 * t], scales[2 * t + 1],
                                 scales[2 * t + 8], scales[2 * t + 9]};
    LeftHalves left[2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const int part = warp_row * 2 + m;
      left[m] = ScaledLeft(stage.query[part][0][lane],
                           stage.query[part][1][lane], own_scales);
    }
    float products[2][2] = {};
#pragma unroll
    for (int x = 0; x < 8; ++x) {
      const uint4 key = stage.key[warp_column * 8 + x][lane];
      float2 value = {0, 0};
      if (kProducts) {
        value = *reinterpret_cast<const float2*>(
            stage.value + warp_column * 64 + x * 8 + 2 * t);
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
            shared.products[channel % 2][warp_column]
                           [warp_row * 32 + m * 16 + h * 8 + g] = sum;
          }
        }
      }
    }
  }
  __syncthreads();
  if (end > begin) store_products(end - 1);

  float* const out =
      group.tiles + (int64_t{split} * group.num_tiles() + tile) * kTile * kTile;
  const float factor =
      kFold == ChannelFold::kSumSquares ? unscale * unscale : unscale;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int x = 0; x < 8; ++x) {
      const int r = warp_row * 32 + m * 16 + g;
      const int w = warp_column * 64 + x * 8 + 2 * t;
      const float(&sum)[4] = sums[m][x];
      *reinterpret_cast<float2*>(out + r * kTile + w) = {sum[0] * factor,
                                                         sum[1] * factor};
      *reinterpret_cast<float2*>(out + (r + 8) * kTile + w) = {sum[2] * factor,
                                                               sum[3] * factor};
    }
  }
}

template <ChannelFold kFold, bool kProducts>
absl::Status LaunchTiles(const Op& op, const FoldGroup& group,
                         cudaStream_t stream) {
  constexpr int kBytes = sizeof(TileMemory);
  const cudaError_t error =
      cudaFuncSetAttribute(FoldTiles<kFold, kProducts>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return CheckLaunch("SsmAttentionFold");
  const dim3 grid(group.num_tiles(), group.tile_splits);
  FoldTiles<kFold, kProducts><<<grid, kThreads, kBytes, stream>>>(op, group);
  return CheckLaunch("SsmAttentionFold");
}

absl::Status RunGroup(const Op& op, const FoldGroup& group,
                      cudaStream_t stream) {
  const dim3 build(CeilDiv(group.num_channels, kBuildChannels),
                   group.num_blocks);
  BuildFactors<<<build, kBuildThreads, 0, stream>>>(op, group);
  LIMPID_RETURN_IF_ERROR(CheckLaunch("SsmAttentionFold"));
  LIMPID_RETURN_IF_ERROR(FoldDiagonals(op, group, stream));
  if (group.num_tiles() == 0) return absl::OkStatus();
  return WithFoldAndProducts(op.fold, group.products != nullptr,
                             [&]<ChannelFold kFold, bool kProducts>() {
                               return LaunchTiles<kFold, kProducts>(op, group,
                                                                    stream);
                             });
}

FoldPlan PlanOf(const Op& op) {
  const SsmAttention<float>& attention = op.attention;
  return FoldPlan({op.fold, attention.ssm.num_positions,
                   attention.ssm.num_channels, op.accumulator, op.product},
                  attention.channel_begin, attention.channel_end,
                  sizeof(BlockFactors));
}

}  // namespace

bool CanFold(const Op& op) {
  return op.attention.ssm.state_size <= kFoldStates &&
         (op.attention.conv_weight == nullptr ||
          op.attention.conv_width <= kTaps);
}

int64_t FoldScratchBytes(const Op& op) { return PlanOf(op).bytes(); }

absl::Status Run(const Op& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  return PlanOf(op).ForEachGroup(
      op.scratch, cuda_stream, [&](const FoldParts& parts, char* factors) {
        const FoldGroup group{parts, reinterpret_cast<BlockFactors*>(factors)};
        return RunGroup(op, group, cuda_stream);
      });
}

}  // namespace limpid::kernels::cuda
