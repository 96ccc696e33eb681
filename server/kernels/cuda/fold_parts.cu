// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/cuda/fold_parts.h"

#include <algorithm>
#include <cmath>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kThreads = 256;
// Blocks of threads that parts should be split into: one on each multiprocessor
// of an H100, since each has much to set up.
constexpr int kWanted = 132;
// Scratch beyond which sequences, and then channels, are taken in groups.
constexpr int64_t kScratchBudget = int64_t{512} << 20;
constexpr int64_t kFloat = sizeof(float);
// Of a grid's third dimension.
constexpr int64_t kMostSequences = 65535;

__host__ __device__ FoldTarget SequenceOf(FoldTarget target, int64_t sequence) {
  target.accumulator += sequence * target.num_positions * target.num_positions;
  return target;
}

// One thread per entry of the matrix.
template <ChannelFold kFold>
__global__ void __launch_bounds__(kThreads)
    JoinSplits(FoldTarget target, FoldParts parts) {
  target = SequenceOf(target, blockIdx.z);
  parts = SequenceOf(parts, blockIdx.z);
  const int64_t length = target.num_positions;
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= length * length) return;
  const int64_t i = at / length, j = at % length;
  float sum = target.accumulator[at];
  if (j > i) {
    // Entries of zero.
    target.accumulator[at] = Joined<kFold>(sum, 0.0f);
    return;
  }
  const int64_t row = i / kTile, column = (j + kShift) / kTile;
  if (column < row) {
    const int64_t size = int64_t{kTile} * kTile;
    const float* part = parts.tiles + (row * (row - 1) / 2 + column) * size +
                        i % kTile * kTile + (j + kShift) % kTile;
    for (int s = 0; s < parts.tile_splits; ++s) {
      sum = Joined<kFold>(sum, part[s * parts.num_tiles() * size]);
    }
  } else {
    const int64_t size = int64_t{kTile} * kDiagonalStride;
    const float* part = parts.diagonals +
                        parts.FirstDiagonalPartOf(row) * size +
                        i % kTile * kDiagonalStride + j + kShift - row * kTile;
    const int splits = parts.DiagonalSplitsOf(row);
    for (int s = 0; s < splits; ++s) sum = Joined<kFold>(sum, part[s * size]);
  }
  target.accumulator[at] = sum;
}

// More would leave each with little to do.
int64_t MostSplits(int64_t channels) { return CeilDiv(channels, 16); }

}  // namespace

FoldPlan::FoldPlan(const FoldTarget& target, int64_t channel_begin,
                   int64_t channel_end, int64_t block_bytes)
    : target_(target),
      begin_(channel_begin),
      end_(channel_end),
      block_bytes_(block_bytes),
      sequences_(std::min(target.num_sequences, kMostSequences)),
      channels_(std::max<int64_t>(channel_end - channel_begin, 1)) {
  // Sequences first: their groups need not be joined.
  while (sequences_ > 1 && bytes() > kScratchBudget) {
    sequences_ = CeilDiv(sequences_, 2);
  }
  while (channels_ > 32 && bytes() > kScratchBudget) {
    channels_ = CeilDiv(channels_, 2);
  }
}

int64_t FoldPlan::bytes() const {
  return sequences_ * Sizes(channels_).sequence_bytes;
}

FoldParts FoldPlan::Sizes(int64_t channels) const {
  FoldParts parts;
  parts.num_sequences = static_cast<int>(sequences_);
  parts.num_channels = static_cast<int>(channels);
  parts.num_blocks = static_cast<int>(CeilDiv(target_.num_positions, kTile));
  const auto splits = [&](int64_t wanted) {
    return static_cast<int>(std::clamp<int64_t>(
        wanted / std::max<int64_t>(sequences_ * parts.num_tiles(), 1), 1,
        MostSplits(channels)));
  };
  parts.tile_splits = splits(kWanted);
  // Two one after the other, if one would leave multiprocessors idle.
  if (sequences_ * parts.num_tiles() * parts.tile_splits < kWanted * 15 / 16) {
    parts.tile_splits = splits(2 * kWanted);
  }
  SplitDiagonals(parts);
  const PartBytes bytes = BytesOf(parts);
  parts.sequence_bytes =
      bytes.factors + bytes.tiles + bytes.diagonals + bytes.products;
  return parts;
}

void FoldPlan::SplitDiagonals(FoldParts& parts) const {
  const int64_t blocks = std::max(parts.num_blocks, 1);
  const int64_t wanted = kWanted / sequences_;
  const int64_t most = MostSplits(parts.num_channels);
  const auto clamped = [&](int64_t splits) {
    return static_cast<int>(std::clamp<int64_t>(splits, 1, most));
  };
  parts.has_short_block =
      target_.num_positions - (blocks - 1) * kTile <= target_.short_rows &&
      channels_ % 8 == 0 && (end_ - begin_) % 8 == 0;
  parts.diagonal_splits = parts.last_splits = clamped(wanted / blocks);
  if (!parts.has_short_block) return;
  // As many for the last block as make the slowest of all blocks of threads the
  // fastest, in channels of a block that is not short.
  const int64_t others = blocks - 1;
  double least = INFINITY;
  for (int last = 1; last <= clamped(wanted - others); ++last) {
    const int other = others > 0 ? clamped((wanted - last) / others) : 1;
    const double slowest = std::max(others > 0 ? 1.0 / other : 0.0, 0.5 / last);
    if (slowest >= least) continue;
    least = slowest;
    parts.diagonal_splits = other;
    parts.last_splits = last;
  }
}

FoldPlan::PartBytes FoldPlan::BytesOf(const FoldParts& parts) const {
  const int64_t blocks = parts.num_blocks, channels = parts.num_channels;
  const int64_t diagonals = std::max(
      blocks, std::min(kWanted / sequences_, blocks * MostSplits(channels)));
  // Every part begins at a multiple of 16 bytes.
  const auto aligned = [](int64_t bytes) { return CeilDiv(bytes, 16) * 16; };
  return {
      aligned(channels * blocks * block_bytes_),
      int64_t{parts.tile_splits} * parts.num_tiles() * kTile * kTile * kFloat,
      diagonals * kTile * kDiagonalStride * kFloat,
      target_.has_products ? channels * blocks * kTile * kFloat : 0};
}

FoldParts FoldPlan::Group(int64_t sequence, int64_t channel, void* scratch,
                          char** factors) const {
  FoldParts parts = Sizes(std::min(channels_, end_ - channel));
  parts.sequence_begin = static_cast<int>(sequence);
  parts.num_sequences =
      static_cast<int>(std::min(sequences_, target_.num_sequences - sequence));
  parts.channel_begin = static_cast<int>(channel);
  const PartBytes bytes = BytesOf(parts);
  *factors = static_cast<char*>(scratch);
  char* const tiles = *factors + bytes.factors;
  parts.tiles = reinterpret_cast<float*>(tiles);
  parts.diagonals = reinterpret_cast<float*>(tiles + bytes.tiles);
  if (target_.has_products) {
    parts.products =
        reinterpret_cast<float*>(tiles + bytes.tiles + bytes.diagonals);
  }
  return parts;
}

absl::Status FoldPlan::Join(const FoldParts& parts, cudaStream_t stream) const {
  const int64_t length = target_.num_positions;
  const FoldTarget target = SequenceOf(target_, parts.sequence_begin);
  return WithFold(target.fold, [&]<ChannelFold kFold>() {
    const dim3 grid(CeilDiv(length * length, kThreads), 1, parts.num_sequences);
    JoinSplits<kFold><<<grid, kThreads, 0, stream>>>(target, parts);
    return CheckLaunch("JoinSplits");
  });
}

}  // namespace limpid::kernels::cuda
