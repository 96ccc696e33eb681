// SPDX-License-Identifier: Apache-2.0
//
// ScalarAttentionFold: factors of all blocks, and the tiles off the diagonal.
// See scalar_fold.h for the formulas.
#include "server/kernels/cuda/scalar_fold.h"

#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kBuildThreads = 64;

using Op = ScalarAttentionFold<float>;

// One thread per channel and block; neighbours are channels.
__global__ void __launch_bounds__(kBuildThreads)
    BuildFactors(Op op, ScalarGroup group) {
  const StateRecurrence<float>& recurrence = op.recurrence;
  const int64_t length = recurrence.num_positions;
  const int channel = blockIdx.x * kBuildThreads + threadIdx.x;
  if (channel >= group.num_channels) return;
  const int64_t c = group.channel_begin + channel;
  const int64_t begin = int64_t{blockIdx.y} * kTile;
  const int64_t channels = group.num_channels;
  float taps[kTaps];
  LoadTaps(op.conv_weight, op.conv_width, c, taps);

  // Loads at every step, of a position that is there, so that many are on their
  // way at once.
  const auto key_at = [&](int64_t p) {
    const float key = NumberAt(recurrence.key, op.sequence, p, c);
    return op.source_scale == nullptr
               ? key
               : key * __ldg(op.source_scale + p * op.source_stride + c);
  };
  float run = 1, sum = 0;
  float after[kShift] = {};
#pragma unroll 16
  for (int w = kDiagonal - 1; w >= 0; --w) {
    const int64_t p = begin - kShift + w;
    const bool exists = p >= 0 && p < length;
    const int64_t at = min(max(p, int64_t{0}), length - 1);
    const float stored = key_at(at);
    const float decay = NumberAt(recurrence.decay, op.sequence, at, c);
    const float key = exists ? stored * run : 0.0f;
    float column = taps[0] * key;
#pragma unroll
    for (int d = 1; d < kTaps; ++d) column += taps[d] * after[d - 1];
#pragma unroll
    for (int d = kShift - 1; d > 0; --d) after[d] = after[d - 1];
    after[0] = key;
    if (exists) run *= decay;
    if (w == kShift) group.through[blockIdx.y * channels + channel] = run;
    if (w >= kTile) continue;
    group.keys[(begin + w) * channels + channel] = column;
    if (op.product != nullptr && exists) {
      sum += column * __ldg(op.value + p * op.value_stride + c);
    }
  }
  group.sums[blockIdx.y * channels + channel] = sum;

  run = 1;
  const bool own_decay = recurrence.diagonal.data == nullptr;
#pragma unroll 16
  for (int r = 0; r < kTile; ++r) {
    const int64_t i = begin + r;
    const int64_t at = min(i, length - 1);
    const float decay = NumberAt(recurrence.decay, op.sequence, at, c);
    float query = NumberAt(recurrence.query, op.sequence, at, c);
    if (op.row_scale != nullptr) {
      query *= __ldg(op.row_scale + at * op.row_stride + c);
    }
    if (own_decay) run *= decay;
    group.queries[i * channels + channel] = i < length ? query * run : 0.0f;
    if (!own_decay) run *= decay;
  }
}

struct TileMemory {
  float query[kScalarChannels][kRowStride];
  float key[kScalarChannels][kRowStride];
  float between[kScalarChannels];
  float weight[kScalarChannels];
};

template <ChannelFold kFold>
__global__ void __launch_bounds__(kScalarThreads, 2)
    FoldTiles(Op op, ScalarGroup group) {
  __shared__ TileMemory shared;
  const int tid = threadIdx.x;
  const int split = blockIdx.y;
  const auto [row, column] = PlaceOfTile(blockIdx.x);
  const int begin = group.SplitBegin(split, group.tile_splits);
  const int end = group.SplitBegin(split + 1, group.tile_splits);
  const int64_t channels = group.num_channels;
  const int cell_row = tid / kCells, cell_column = tid % kCells;
  float sums[kCell][kCell];
#pragma unroll
  for (int r = 0; r < kCell; ++r) {
#pragma unroll
    for (int x = 0; x < kCell; ++x) sums[r][x] = EmptyFold<kFold>();
  }

  for (int first = begin; first < end; first += kScalarChannels) {
    const int count = min(kScalarChannels, end - first);
    __syncthreads();
    if (tid < count) {
      float between = 1;
      for (int b = column + 1; b < row; ++b) {
        between *= group.through[b * channels + first + tid];
      }
      shared.between[tid] = between;
      if (kFold == ChannelFold::kWeightedSumAbs) {
        shared.weight[tid] = op.weight[group.channel_begin + first + tid];
      }
    }
    __syncthreads();
    for (int at = tid; at < kScalarChannels * kTile; at += kScalarThreads) {
      const int k = at % kScalarChannels, x = at / kScalarChannels;
      if (k >= count) continue;
      const int64_t channel = first + k;
      shared.query[k][x] =
          group.queries[(int64_t{row} * kTile + x) * channels + channel] *
          shared.between[k];
      shared.key[k][x] =
          group.keys[(int64_t{column} * kTile + x) * channels + channel];
    }
    __syncthreads();
    for (int k = 0; k < count; ++k) {
      float query[kCell], key[kCell];
#pragma unroll
      for (int x = 0; x < kCell; x += 4) {
        const auto load = [&](float(&to)[kCell], const float* from) {
          const float4 four = *reinterpret_cast<const float4*>(from + x);
          to[x] = four.x;
          to[x + 1] = four.y;
          to[x + 2] = four.z;
          to[x + 3] = four.w;
        };
        load(query, shared.query[k] + cell_row * kCell);
        load(key, shared.key[k] + cell_column * kCell);
      }
      const float weight =
          kFold == ChannelFold::kWeightedSumAbs ? shared.weight[k] : 1.0f;
#pragma unroll
      for (int r = 0; r < kCell; ++r) {
#pragma unroll
        for (int x = 0; x < kCell; ++x) {
          sums[r][x] = Folded<kFold>(sums[r][x], query[r] * key[x], weight);
        }
      }
    }
  }
  float* const out =
      group.tiles +
      (int64_t{split} * group.num_tiles() + blockIdx.x) * kTile * kTile;
#pragma unroll
  for (int r = 0; r < kCell; ++r) {
#pragma unroll
    for (int x = 0; x < kCell; x += 4) {
      *reinterpret_cast<float4*>(out + (cell_row * kCell + r) * kTile +
                                 cell_column * kCell + x) = {
          sums[r][x], sums[r][x + 1], sums[r][x + 2], sums[r][x + 3]};
    }
  }
}

template <ChannelFold kFold>
absl::Status LaunchTiles(const Op& op, const ScalarGroup& group,
                         cudaStream_t stream) {
  const dim3 grid(group.num_tiles(), group.tile_splits);
  FoldTiles<kFold><<<grid, kScalarThreads, 0, stream>>>(op, group);
  return CheckLaunch("ScalarAttentionFold");
}

absl::Status RunGroup(const Op& op, const ScalarGroup& group,
                      cudaStream_t stream) {
  const dim3 build(CeilDiv(group.num_channels, kBuildThreads),
                   group.num_blocks);
  BuildFactors<<<build, kBuildThreads, 0, stream>>>(op, group);
  LIMPID_RETURN_IF_ERROR(CheckLaunch("ScalarAttentionFold"));
  LIMPID_RETURN_IF_ERROR(FoldScalarDiagonals(op, group, stream));
  if (group.num_tiles() == 0) return absl::OkStatus();
  return WithFold(op.fold, [&]<ChannelFold kFold>() {
    return LaunchTiles<kFold>(op, group, stream);
  });
}

FoldPlan PlanOf(const Op& op) {
  const StateRecurrence<float>& recurrence = op.recurrence;
  // Products are no parts that are to be joined.
  return FoldPlan({op.fold, /*num_sequences=*/1, recurrence.num_positions,
                   recurrence.num_heads, op.accumulator, /*product=*/nullptr},
                  0, recurrence.num_heads, kScalarBlockBytes);
}

}  // namespace

bool CanFold(const Op& op) {
  return op.recurrence.key_size == 1 && op.recurrence.left.data == nullptr &&
         (op.conv_weight == nullptr || op.conv_width <= kTaps);
}

int64_t FoldScratchBytes(const Op& op) { return PlanOf(op).bytes(); }

absl::Status Run(const Op& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  return PlanOf(op).ForEachGroup(
      op.scratch, cuda_stream, [&](const FoldParts& parts, char* factors) {
        return RunGroup(op, ScalarGroup(parts, factors), cuda_stream);
      });
}

}  // namespace limpid::kernels::cuda
