// SPDX-License-Identifier: Apache-2.0
//
// ScalarAttentionFold: how channels are split, and the tiles off the diagonal.
// See scalar_fold.h for the formulas.
#include "server/kernels/cuda/scalar_fold.h"

#include <algorithm>
#include <cstdint>

#include "server/kernels/cuda/launch.h"

namespace limpid::kernels::cuda {
namespace {

using Op = ScalarAttentionFold<float>;

// Blocks of threads that run at once: two on each multiprocessor of an H100.
constexpr int64_t kRunningBlocks = 264;
// Bytes of factors beyond which channels are taken in groups.
constexpr int64_t kFactorBudget = int64_t{512} << 20;

// Channels whose decays between blocks are at hand.
constexpr int kBetween = 256;

// Steps of channels are in two buffers in turn.
struct TileMemory {
  float query[2][kTileChannels][kRowStride];
  float key[2][kTileChannels][kRowStride];
  float between[kBetween];
};

// Four channels of a row of a tile and of a column, on their way from global to
// shared memory.
struct TileQuads {
  float4 query, key;
};

// A thread has four rows and the four sixteen below, of four columns and the
// four 32 to the right: neighbours read neighbouring quads. A warp has 32 rows
// by 64 columns.
template <ChannelFold kFold>
__global__ void __launch_bounds__(kScalarThreads, 2)
    FoldTiles(Op op, ScalarGroup group) {
  constexpr int kRowsApart = 16, kColumnsApart = 32;
  __shared__ __align__(16) TileMemory shared;
  const int tid = threadIdx.x;
  const int split = blockIdx.y;
  const auto [row, column] = PlaceOfTile(blockIdx.x);
  const int begin = split * group.tile_splits.channels;
  const int end = min(begin + group.tile_splits.channels, group.num_channels);
  const int warp = tid / 32, lane = tid % 32;
  const int first_row = warp / 2 * 32 + lane / 8 * 4;
  const int first_column = warp % 2 * 64 + lane % 8 * 4;
  float sums[8][8];
#pragma unroll
  for (int r = 0; r < 8; ++r) {
#pragma unroll
    for (int x = 0; x < 8; ++x) sums[r][x] = EmptyFold<kFold>();
  }

  // What the thread copies: four channels of one position of either block.
  const int position = tid / 2, quad = tid % 2 * 4;
  const float* const queries =
      group.queries + (int64_t{row} * kTile + position) * group.stride + quad;
  const float* const keys =
      group.keys + (int64_t{column} * kTile + position) * group.stride + quad;
  const auto load = [&](int channel) -> TileQuads {
    return {QuadAt(queries + channel), QuadAt(keys + channel)};
  };
  const auto store = [&](const TileQuads& quads, int buffer, int known) {
    const float4 between = QuadAt(shared.between + known + quad);
    const auto put = [&](int k, float query, float factor, float key) {
      shared.query[buffer][quad + k][position] =
          FoldedFactor<kFold>(query) * factor;
      shared.key[buffer][quad + k][position] = FoldedFactor<kFold>(key);
    };
    put(0, quads.query.x, between.x, quads.key.x);
    put(1, quads.query.y, between.y, quads.key.y);
    put(2, quads.query.z, between.z, quads.key.z);
    put(3, quads.query.w, between.w, quads.key.w);
  };

  for (int known = begin; known < end; known += kBetween) {
    const int known_end = min(known + kBetween, end);
    __syncthreads();
    if (known + tid < known_end) {
      const int channel = known + tid;
      float between = 1;
#pragma unroll 8
      for (int b = column + 1; b < row; ++b) {
        between *= group.through[b * group.stride + channel];
      }
      const float weight = kFold == ChannelFold::kWeightedSumAbs
                               ? op.weight[group.channel_begin + channel]
                               : 1.0f;
      shared.between[tid] = FoldedFactor<kFold>(between, weight);
    } else {
      shared.between[tid] = 0;
    }
    TileQuads quads = load(known);
    __syncthreads();
    store(quads, 0, 0);
    __syncthreads();
    int buffer = 0;
    for (int first = known; first < known_end; first += kTileChannels) {
      const int next = first + kTileChannels;
      if (next < known_end) quads = load(next);
#pragma unroll
      for (int k = 0; k < kTileChannels; ++k) {
        // Factors of zero are no entries of a maximum.
        if (!kFoldsFactors<kFold> && first + k >= known_end) break;
        float query[8], key[8];
        const auto read = [](float(&to)[8], const float* from, int apart) {
          const float4 low = QuadAt(from), high = QuadAt(from + apart);
          to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
          to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
        };
        read(query, shared.query[buffer][k] + first_row, kRowsApart);
        read(key, shared.key[buffer][k] + first_column, kColumnsApart);
#pragma unroll
        for (int r = 0; r < 8; ++r) {
#pragma unroll
          for (int x = 0; x < 8; ++x) {
            sums[r][x] = FoldedProduct<kFold>(sums[r][x], query[r], key[x]);
          }
        }
      }
      buffer ^= 1;
      if (next < known_end) store(quads, buffer, next - known);
      __syncthreads();
    }
  }

  float* const out =
      group.tiles +
      (int64_t{split} * group.num_tiles() + blockIdx.x) * kTile * kTile;
#pragma unroll
  for (int r = 0; r < 8; ++r) {
    float* const to =
        out + (first_row + r / 4 * kRowsApart + r % 4) * kTile + first_column;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* const four = sums[r] + 4 * half;
      *reinterpret_cast<float4*>(to + half * kColumnsApart) = {
          four[0], four[1], four[2], four[3]};
    }
  }
}

absl::Status RunGroup(const Op& op, const ScalarGroup& group,
                      cudaStream_t stream) {
  LIMPID_RETURN_IF_ERROR(FoldScalarDiagonals(op, group, stream));
  if (group.num_tiles() > 0) {
    LIMPID_RETURN_IF_ERROR(WithFold(op.fold, [&]<ChannelFold kFold>() {
      const dim3 grid(group.num_tiles(), group.tile_splits.count);
      FoldTiles<kFold><<<grid, kScalarThreads, 0, stream>>>(op, group);
      return CheckLaunch("ScalarAttentionFold");
    }));
  }
  return JoinScalarParts(op, group, stream);
}

// So that the channels of `blocks` parts take the least time in all, of which a
// step of channels takes one unit, and what a block leaves to be joined as long
// as `join` steps.
ChannelSplits Split(int64_t blocks, int64_t channels, int64_t step,
                    int64_t join) {
  const int64_t steps = CeilDiv(channels, step);
  ChannelSplits best;
  int64_t least = INT64_MAX;
  for (int64_t count = 1; count <= std::min(steps, kRunningBlocks); ++count) {
    const int64_t own = CeilDiv(steps, count);
    const int64_t time = CeilDiv(blocks * count, kRunningBlocks) * (own + join);
    if (time >= least) continue;
    least = time;
    best.count = static_cast<int>(CeilDiv(steps, own));
    best.channels = static_cast<int>(own * step);
  }
  return best;
}

// A group without pointers.
ScalarGroup GroupOf(int64_t length, int64_t channels) {
  ScalarGroup group;
  group.num_channels = static_cast<int>(channels);
  group.num_blocks = static_cast<int>(CeilDiv(length, kTile));
  group.stride = CeilDiv(channels, kScalarChannels) * kScalarChannels;
  group.tile_splits = Split(group.num_tiles(), channels, kTileChannels, 7);
  group.diagonal_splits = Split(group.num_blocks, channels, kScalarChannels, 1);
  return group;
}

// Sets the group's pointers to parts of scratch; bytes of all of them.
int64_t Place(char* scratch, ScalarGroup& group) {
  int64_t used = 0;
  const auto take = [&](float*& part, int64_t numbers) {
    if (scratch != nullptr) part = reinterpret_cast<float*>(scratch + used);
    used += numbers * static_cast<int64_t>(sizeof(float));
  };
  const int64_t blocks = group.num_blocks;
  take(group.queries, blocks * kTile * group.stride);
  take(group.keys, blocks * kTile * group.stride);
  take(group.through, blocks * group.stride);
  take(group.sums, blocks * group.stride);
  take(group.tiles,
       int64_t{group.tile_splits.count} * group.num_tiles() * kTile * kTile);
  take(group.diagonals,
       int64_t{group.diagonal_splits.count} * blocks * kTile * kDiagonalStride);
  return used;
}

int64_t BytesOf(int64_t length, int64_t channels) {
  ScalarGroup group = GroupOf(length, channels);
  return Place(nullptr, group);
}

// Channels whose parts are held at once.
int64_t ChannelsAtOnce(const Op& op) {
  const int64_t positions = CeilDiv(op.recurrence.num_positions, kTile) * kTile;
  // Queries and keys.
  const int64_t most =
      kFactorBudget / (2 * positions * static_cast<int64_t>(sizeof(float)));
  return std::clamp<int64_t>(op.recurrence.num_heads, 1,
                             std::max<int64_t>(most, kScalarChannels));
}

}  // namespace

bool CanFold(const Op& op) {
  return op.recurrence.key_size == 1 && op.recurrence.left.data == nullptr &&
         (op.conv_weight == nullptr || op.conv_width <= kTaps);
}

int64_t FoldScratchBytes(const Op& op) {
  const int64_t length = op.recurrence.num_positions;
  const int64_t at_once = ChannelsAtOnce(op);
  const int64_t last = op.recurrence.num_heads % at_once;
  // Fewer channels can be in more splits.
  return std::max(BytesOf(length, at_once),
                  last == 0 ? 0 : BytesOf(length, last));
}

absl::Status Run(const Op& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const int64_t channels = op.recurrence.num_heads;
  const int64_t at_once = ChannelsAtOnce(op);
  for (int64_t c = 0; c < channels; c += at_once) {
    ScalarGroup group =
        GroupOf(op.recurrence.num_positions, std::min(at_once, channels - c));
    group.channel_begin = static_cast<int>(c);
    Place(static_cast<char*>(op.scratch), group);
    LIMPID_RETURN_IF_ERROR(
        RunGroup(op, group, static_cast<cudaStream_t>(stream)));
  }
  return absl::OkStatus();
}

}  // namespace limpid::kernels::cuda
