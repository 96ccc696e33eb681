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
// Blocks that the tiles of a group should be split into.
constexpr int kWantedBlocks = 264;

using Op = SsmAttentionFold<float>;

// One thread per channel, block and state; 16 neighbours are the states.
__global__ void __launch_bounds__(kThreads)
    BuildFactors(Op op, FoldGroup group) {
  constexpr int kChannels = kThreads / kFoldStates;
  const SsmAttention<float>& attention = op.attention;
  const SelectiveSsm<float>& ssm = attention.ssm;
  const int64_t length = ssm.num_positions;
  const int n = threadIdx.x % kFoldStates;
  const int local = blockIdx.x * kChannels + threadIdx.x / kFoldStates;
  // Threads without a channel of their own repeat the last one's numbers and
  // keep them: all lanes of a warp shuffle below.
  const bool own = local < group.num_channels;
  const int place = min(local, group.num_channels - 1);
  const int64_t c = group.channel_begin + place;
  const int64_t begin = int64_t{blockIdx.y} * kTile;
  BlockFactors& out =
      group.factors[int64_t{place} * group.num_blocks + blockIdx.y];
  const bool has_state = n < ssm.state_size;
  const float a = has_state ? ssm.a[c * ssm.state_size + n] : 0.0f;
  float taps[kTaps];
  float sum_taps = 0;
  for (int d = 0; d < kTaps; ++d) {
    taps[d] = d == 0 ? 1.0f : 0.0f;
    if (attention.conv_weight != nullptr) {
      const int64_t width = attention.conv_width;
      taps[d] =
          d < width ? attention.conv_weight[c * width + width - 1 - d] : 0.0f;
    }
    sum_taps += fabsf(taps[d]);
  }
  const auto delta_at = [&](int64_t p) {
    return ssm.delta[p * ssm.delta_stride + c];
  };
  const auto source_at = [&](int64_t p) {
    if (!has_state) return 0.0f;
    const float key = delta_at(p) * ssm.b[p * ssm.b_stride + n];
    return attention.source_scale == nullptr
               ? key
               : key * attention.source_scale[p * attention.source_stride + c];
  };

  const int64_t key_begin = max(begin - kShift, int64_t{0});
  const int64_t key_end = min(begin + kTile, length);
  float key_bound = 0;
#pragma unroll 4
  for (int64_t p = key_begin; p < key_end; ++p) {
    key_bound = fmaxf(key_bound, fabsf(source_at(p)));
  }
  key_bound *= sum_taps;
  const float scale = PowerOfTwoScale(key_bound, 13);

  float sum = 0;
  float after[kShift] = {};  // keys at the next positions
  uint32_t* const keys = reinterpret_cast<uint32_t*>(out.key);
  const int t = n % 8 / 2;
#pragma unroll 4
  for (int w = kTile + kShift - 1; w >= 0; --w) {
    const int64_t p = begin - kShift + w;
    const bool exists = p >= 0 && p < length;
    const float key = exists ? source_at(p) * expf(a * sum) : 0.0f;
    float column = taps[0] * key;
#pragma unroll
    for (int d = 1; d < kTaps; ++d) column += taps[d] * after[d - 1];
#pragma unroll
    for (int d = kShift - 1; d > 0; --d) after[d] = after[d - 1];
    after[0] = key;
    if (exists) sum += delta_at(p);
    if (w < kTile) {
      // Even lanes write the high halves of two states, odd ones the low.
      const float mine = column * scale;
      const float other = __shfl_xor_sync(0xffffffffu, mine, 1);
      const HalfPairs pairs =
          n % 2 == 0 ? Split(mine, other) : Split(other, mine);
      const int lane = w % 8 * 4 + t;
      if (own) {
        keys[((w / 8) * 32 + lane) * 4 + (n % 2) * 2 + n / 8] =
            n % 2 == 0 ? pairs.high : pairs.low;
      }
    }
  }

  sum = 0;
  float most = 0, bound = 0;
#pragma unroll 4
  for (int r = 0; r < kTile; ++r) {
    const int64_t i = begin + r;
    float query = 0;
    if (i < length && has_state) {
      sum += delta_at(i);
      float whole = ssm.c[i * ssm.c_stride + n];
      if (attention.row_scale != nullptr) {
        whole *= attention.row_scale[i * attention.row_stride + c];
      }
      query = whole * expf(a * sum);
      most = fmaxf(most, fabsf(query));
      bound = fmaxf(bound, fabsf(whole));
    }
    if (own) {
      float* const fragment =
          reinterpret_cast<float*>(&out.query[r / 16][n / 8][r % 8 * 4 + t]);
      fragment[r % 16 / 8 * 2 + n % 2] = query;
    }
  }
  if (!own) return;
  out.key_unscale[n] = 1 / scale;
  out.query_most[n] = most;
  out.query_bound[n] = bound;
  out.key_bound[n] = key_bound;
  if (n == 0) out.sum_delta[0] = sum;
  if (group.products != nullptr) {
    for (int w = n; w < kTile; w += kFoldStates) {
      const int64_t j = begin - kShift + w;
      out.value[w] =
          j >= 0 && j < length ? op.value[j * op.value_stride + c] : 0.0f;
    }
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
  int row = static_cast<int>((1 + sqrtf(1 + 8.0f * tile)) / 2);
  while (row * (row - 1) / 2 > tile) --row;
  while ((row + 1) * row / 2 <= tile) ++row;
  const int column = tile - row * (row - 1) / 2;
  const int begin =
      static_cast<int>(int64_t{group.num_channels} * split / group.tile_splits);
  const int end = static_cast<int>(int64_t{group.num_channels} * (split + 1) /
                                   group.tile_splits);
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
            ? ssm.a[(group.channel_begin + channel) * ssm.state_size + n]
            : 0.0f;
    return most * expf(a * gap) * factors(channel, column).key_unscale[n];
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
      for (int at = tid; at < kTile * 4; at += kThreads) {
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
      group.products[((int64_t{channel} * group.num_blocks + column) *
                          group.num_blocks +
                      row) *
                         kTile +
                     tid] = (halves[0][tid] + halves[1][tid]) * unscale;
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
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        float entries[4];
        MultiplyPairs(entries, left[m], key);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sums[m][x][e] = Folded<kFold>(sums[m][x][e], entries[e], weight);
        }
        if (kProducts) {
          products[m][0] += entries[0] * value.x + entries[1] * value.y;
          products[m][1] += entries[2] * value.x + entries[3] * value.y;
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

// One thread per entry of the matrix.
template <ChannelFold kFold>
__global__ void __launch_bounds__(kThreads) JoinSplits(Op op, FoldGroup group) {
  const int64_t length = op.attention.ssm.num_positions;
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= length * length) return;
  const int64_t i = at / length, j = at % length;
  float sum = op.accumulator[at];
  if (j > i) {
    // Entries of zero.
    op.accumulator[at] = Joined<kFold>(sum, 0.0f);
    return;
  }
  const int64_t row = i / kTile, column = (j + kShift) / kTile;
  if (column < row) {
    const int64_t size = int64_t{kTile} * kTile;
    const float* part = group.tiles + (row * (row - 1) / 2 + column) * size +
                        i % kTile * kTile + (j + kShift) % kTile;
    for (int s = 0; s < group.tile_splits; ++s) {
      sum = Joined<kFold>(sum, part[s * group.num_tiles() * size]);
    }
  } else {
    const int64_t size = int64_t{kTile} * kDiagonalStride;
    const float* part = group.diagonals + row * size +
                        i % kTile * kDiagonalStride + j + kShift - row * kTile;
    for (int s = 0; s < group.diagonal_splits; ++s) {
      sum = Joined<kFold>(sum, part[s * group.num_blocks * size]);
    }
  }
  op.accumulator[at] = sum;
}

// product[i, c] = sum over the blocks of columns. Blocks of 32 rows by 32
// channels, turned in shared memory.
__global__ void __launch_bounds__(kThreads)
    SumProducts(Op op, FoldGroup group) {
  constexpr int kSide = 32;
  __shared__ float turned[kSide][kSide + 1];
  const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  const int64_t first_row = int64_t{blockIdx.x} * kSide;
  const int first_channel = blockIdx.y * kSide;
  const int row = static_cast<int>(first_row / kTile);
  for (int k = y; k < kSide; k += kThreads / kSide) {
    const int channel = first_channel + k;
    float sum = 0;
    if (channel < group.num_channels) {
      for (int column = 0; column <= row; ++column) {
        sum += group.products[((int64_t{channel} * group.num_blocks + column) *
                                   group.num_blocks +
                               row) *
                                  kTile +
                              first_row % kTile + x];
      }
    }
    turned[k][x] = sum;
  }
  __syncthreads();
  for (int k = y; k < kSide; k += kThreads / kSide) {
    const int64_t i = first_row + k;
    const int channel = first_channel + x;
    if (i < op.attention.ssm.num_positions && channel < group.num_channels) {
      op.product[i * op.attention.ssm.num_channels + group.channel_begin +
                 channel] = turned[x][k];
    }
  }
}

int64_t NumBlocks(const Op& op) {
  return CeilDiv(op.attention.ssm.num_positions, kTile);
}

// Sizes of a group of `channels`, without its pointers.
FoldGroup GroupOf(const Op& op, int64_t channels) {
  FoldGroup group;
  group.num_channels = static_cast<int>(channels);
  group.num_blocks = static_cast<int>(NumBlocks(op));
  const auto splits = [&](int64_t parts) {
    return static_cast<int>(std::clamp<int64_t>(
        kWantedBlocks / std::max<int64_t>(parts, 1), 1, CeilDiv(channels, 16)));
  };
  group.tile_splits = splits(group.num_tiles());
  group.diagonal_splits = splits(group.num_blocks);
  return group;
}

struct FoldBytes {
  int64_t factors, tiles, diagonals, products;
  int64_t total() const { return factors + tiles + diagonals + products; }
};

FoldBytes BytesOf(const Op& op, const FoldGroup& group) {
  const int64_t blocks = group.num_blocks;
  FoldBytes bytes;
  bytes.factors =
      group.num_channels * blocks * static_cast<int64_t>(sizeof(BlockFactors));
  bytes.tiles = int64_t{group.tile_splits} * group.num_tiles() * kTile * kTile *
                int64_t{sizeof(float)};
  bytes.diagonals = group.diagonal_splits * blocks * kTile * kDiagonalStride *
                    int64_t{sizeof(float)};
  bytes.products = op.product == nullptr
                       ? 0
                       : group.num_channels * blocks * blocks * kTile *
                             int64_t{sizeof(float)};
  return bytes;
}

// Channels that fit into `budget` bytes together.
int64_t GroupSize(const Op& op, int64_t budget) {
  const int64_t channels =
      op.attention.channel_end - op.attention.channel_begin;
  int64_t size = channels;
  while (size > 32 && BytesOf(op, GroupOf(op, size)).total() > budget) {
    size = CeilDiv(size, 2);
  }
  return size;
}

constexpr int64_t kScratchBudget = int64_t{512} << 20;

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
  const int64_t length = op.attention.ssm.num_positions;
  const dim3 build(CeilDiv(group.num_channels, kThreads / kFoldStates),
                   group.num_blocks);
  BuildFactors<<<build, kThreads, 0, stream>>>(op, group);
  LIMPID_RETURN_IF_ERROR(CheckLaunch("SsmAttentionFold"));
  LIMPID_RETURN_IF_ERROR(FoldDiagonals(op, group, stream));
  LIMPID_RETURN_IF_ERROR(WithFold(op.fold, [&]<ChannelFold kFold>() {
    if (group.num_tiles() > 0) {
      LIMPID_RETURN_IF_ERROR(
          group.products != nullptr
              ? (LaunchTiles<kFold, true>(op, group, stream))
              : (LaunchTiles<kFold, false>(op, group, stream)));
    }
    const int64_t blocks = CeilDiv(length * length, kThreads);
    JoinSplits<kFold>
        <<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(op, group);
    return CheckLaunch("SsmAttentionFold");
  }));
  if (group.products == nullptr) return absl::OkStatus();
  const dim3 sum(CeilDiv(length, 32), CeilDiv(group.num_channels, 32));
  SumProducts<<<sum, kThreads, 0, stream>>>(op, group);
  return CheckLaunch("SsmAttentionFold");
}

}  // namespace

bool CanFold(const Op& op) {
  return op.attention.ssm.state_size <= kFoldStates &&
         (op.attention.conv_weight == nullptr ||
          op.attention.conv_width <= kTaps);
}

int64_t SsmAttentionFoldScratchBytes(const Op& op) {
  return BytesOf(op, GroupOf(op, GroupSize(op, kScratchBudget))).total();
}

absl::Status Run(const Op& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const int64_t size = GroupSize(op, kScratchBudget);
  const int64_t end = op.attention.channel_end;
  for (int64_t channel = op.attention.channel_begin; channel < end;
       channel += size) {
    FoldGroup group = GroupOf(op, std::min(size, end - channel));
    group.channel_begin = static_cast<int>(channel);
    const FoldBytes bytes = BytesOf(op, group);
    char* at = static_cast<char*>(op.scratch);
    const auto take = [&](int64_t count) {
      char* const here = at;
      at += count;
      return here;
    };
    group.factors = reinterpret_cast<BlockFactors*>(take(bytes.factors));
    group.tiles = reinterpret_cast<float*>(take(bytes.tiles));
    group.diagonals = reinterpret_cast<float*>(take(bytes.diagonals));
    if (op.product != nullptr) {
      group.products = reinterpret_cast<float*>(take(bytes.products));
    }
    LIMPID_RETURN_IF_ERROR(
        RunGroup(op, group, static_cast<cudaStream_t>(stream)));
  }
  return absl::OkStatus();
}

}  // namespace limpid::kernels::cuda
