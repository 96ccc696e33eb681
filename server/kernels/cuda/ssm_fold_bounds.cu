// SPDX-License-Identifier: Apache-2.0
//
// What the kernels of SsmAttentionFold must know of a channel and a block
// before they make factors: how large these can be, and what is constant in
// them.
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/mma.h"
#include "server/kernels/cuda/ssm_fold.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

using Op = SsmAttentionFold<float>;

// A thread has a channel and every kParts-th position; neighbours are channels.
constexpr int kChannels = 32;
constexpr int kParts = 16;
constexpr int kThreads = kChannels * kParts;
// And of b and c a state and every kStateParts-th position.
constexpr int kStateParts = kThreads / kFoldStates;
static_assert(kParts == kFoldStates && kStateParts == 32);

template <int kEvery>
inline constexpr int kRounds = (kDiagonal + kEvery - 1) / kEvery;

struct Most {
  float input, scale, delta;  // |delta source|, |row_scale|; sum of delta
};

// One number more, so that what is together in the end is in different banks.
struct BoundMemory {
  Most most[kParts][kChannels + 1];
  float b[kStateParts][kFoldStates + 1], c[kStateParts][kFoldStates + 1];
  float b_most[kFoldStates], c_most[kFoldStates];
};

// The largest of kLanes neighbours; all threads of the warp must come here.
template <int kLanes>
__device__ float LargestOf(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  }
  return x;
}

// As many blocks as there usually are should be on their way at once.
__global__ void __launch_bounds__(kThreads, 3) Bound(Op op, FoldGroup group) {
  op = SequenceOf(op, blockIdx.z);
  group = SequenceOf(group, blockIdx.z);
  __shared__ BoundMemory shared;
  const SsmAttention<float>& attention = op.attention;
  const SelectiveSsm<float>& ssm = attention.ssm;
  const int64_t length = ssm.num_positions;
  const int num_states = static_cast<int>(ssm.state_size);
  const int block = blockIdx.y;
  const int64_t begin = int64_t{block} * kTile - kShift;
  const int tid = threadIdx.x;

  // Of the channel that the thread has in the end: on their way meanwhile.
  const int own = tid / kFoldStates, n = tid % kFoldStates;
  const int channel = blockIdx.x * kChannels + own;
  const int64_t at = group.channel_begin + min(channel, group.num_channels - 1);
  const float rate =
      n < num_states ? __ldg(ssm.a + at * num_states + n) * kLog2E : 0.0f;
  float taps[kTaps], skip = 0, weight = 1, conv_bias = 0;
  if (n == 0) {
    LoadTaps(attention.conv_weight, attention.conv_width, at, taps);
    if (ssm.skip != nullptr) skip = ssm.skip[at];
    if (op.fold == ChannelFold::kWeightedSumAbs) weight = op.weight[at];
    if (op.conv_bias != nullptr) conv_bias = op.conv_bias[at];
  }

  // Positions that are not there are others', and count for nothing: so all
  // loads are on their way at once.
  {
    const int part = tid / kFoldStates, state = min(n, num_states - 1);
    float b = 0, c = 0;
#pragma unroll
    for (int k = 0; k < kRounds<kStateParts>; ++k) {
      const int x = k * kStateParts + part;
      const int64_t p = begin + x;
      const int64_t from = min(max(p, int64_t{0}), length - 1);
      const float b_at = fabsf(__ldg(ssm.b + from * ssm.b_stride + state));
      const float c_at = fabsf(__ldg(ssm.c + from * ssm.c_stride + state));
      const bool exists = p == from && x < kDiagonal && n < num_states;
      b = fmaxf(b, exists ? b_at : 0.0f);
      c = fmaxf(c, exists ? c_at : 0.0f);
    }
    shared.b[part][n] = b;
    shared.c[part][n] = c;
  }
  {
    const int neighbour = blockIdx.x * kChannels + tid % kChannels;
    const int64_t c =
        group.channel_begin + min(neighbour, group.num_channels - 1);
    const int part = tid / kChannels;
    Most most = {};
    // A few at a time, so that no load waits for what is made of another.
    constexpr int kBatch = 3;
    static_assert(kRounds<kParts> % kBatch == 0);
#pragma unroll 1
    for (int round = 0; round < kRounds<kParts>; round += kBatch) {
      float delta[kBatch], source[kBatch], scale[kBatch];
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        const int64_t p = begin + (round + k) * kParts + part;
        const int64_t from = min(max(p, int64_t{0}), length - 1);
        delta[k] = __ldg(ssm.delta + from * ssm.delta_stride + c);
        source[k] = scale[k] = 1;
        if (attention.source_scale != nullptr) {
          source[k] = __ldg(attention.source_scale +
                            from * attention.source_stride + c);
        }
        if (attention.row_scale != nullptr) {
          scale[k] =
              __ldg(attention.row_scale + from * attention.row_stride + c);
        }
      }
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        const int x = (round + k) * kParts + part;
        const int64_t p = begin + x;
        const bool exists = p >= 0 && p < length && x < kDiagonal;
        const bool is_row = exists && x >= kShift;
        most.input =
            fmaxf(most.input, exists ? fabsf(delta[k] * source[k]) : 0.0f);
        most.scale = fmaxf(most.scale, is_row ? fabsf(scale[k]) : 0.0f);
        most.delta += is_row ? delta[k] : 0.0f;
      }
    }
    shared.most[part][tid % kChannels] = most;
  }
  __syncthreads();
  // A warp has a state of b and c, ...
  {
    const int state = tid / 32, part = tid % 32;
    const float b = LargestOf<32>(shared.b[part][state]);
    const float c = LargestOf<32>(shared.c[part][state]);
    if (part == 0) shared.b_most[state] = b, shared.c_most[state] = c;
  }
  __syncthreads();

  // ... and then kFoldStates neighbours a channel.
  Most all = shared.most[n][own];
  all.input = LargestOf<kFoldStates>(all.input);
  all.scale = LargestOf<kFoldStates>(all.scale);
#pragma unroll
  for (int offset = kFoldStates / 2; offset > 0; offset /= 2) {
    all.delta += __shfl_xor_sync(0xffffffffu, all.delta, offset);
  }
  const float b_most = LargestOf<kFoldStates>(shared.b_most[n]);
  const float c_most = LargestOf<kFoldStates>(shared.c_most[n]);
  if (channel >= group.num_channels) return;
  BlockFactors& out = group.FactorsAt(channel, block);
  out.columns.rate[n] = rate;
  if (n > 0) return;
  float sum_taps = 0;
#pragma unroll
  for (int d = 0; d < kTaps; ++d) {
    out.columns.taps[d] = taps[d];
    sum_taps += fabsf(taps[d]);
  }
  out.columns.skip = skip;
  out.columns.weight = weight;
  out.columns.conv_bias = conv_bias;
  out.query_bound = all.scale * c_most;
  out.key_bound = all.input * b_most * sum_taps;
  out.columns.unit = 1 / PowerOfTwoScale(out.key_bound, 13);
  out.sum_delta = all.delta;
}

}  // namespace

absl::Status BoundFactors(const Op& op, const FoldGroup& group,
                          cudaStream_t stream) {
  const dim3 grid(CeilDiv(group.num_channels, kChannels), group.num_blocks,
                  group.num_sequences);
  Bound<<<grid, kThreads, 0, stream>>>(op, group);
  return CheckLaunch("SsmAttentionFold");
}

}  // namespace limpid::kernels::cuda
