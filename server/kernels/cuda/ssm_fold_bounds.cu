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

template <int kEvery>
inline constexpr int kRounds = (kDiagonal + kEvery - 1) / kEvery;

struct Most {
  float input, scale, delta;  // |delta source|, |row_scale|; sum of delta
};

struct BoundMemory {
  Most most[kParts][kChannels];
  float b[kStateParts][kFoldStates], c[kStateParts][kFoldStates];
  float b_most[kFoldStates], c_most[kFoldStates];
};

__global__ void __launch_bounds__(kThreads) Bound(Op op, FoldGroup group) {
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

  // Positions that are not there are others', and count for nothing: so all
  // loads are on their way at once.
  {
    const int part = tid / kFoldStates, state = tid % kFoldStates;
    const int n = min(state, num_states - 1);
    float b = 0, c = 0;
#pragma unroll
    for (int k = 0; k < kRounds<kStateParts>; ++k) {
      const int x = k * kStateParts + part;
      const int64_t p = begin + x;
      const int64_t at = min(max(p, int64_t{0}), length - 1);
      const float b_at = fabsf(__ldg(ssm.b + at * ssm.b_stride + n));
      const float c_at = fabsf(__ldg(ssm.c + at * ssm.c_stride + n));
      const bool exists = p == at && x < kDiagonal && state < num_states;
      b = fmaxf(b, exists ? b_at : 0.0f);
      c = fmaxf(c, exists ? c_at : 0.0f);
    }
    shared.b[part][state] = b;
    shared.c[part][state] = c;
  }
  const int channel = blockIdx.x * kChannels + tid % kChannels;
  const bool own = channel < group.num_channels;
  const int64_t c = group.channel_begin + min(channel, group.num_channels - 1);
  Most most = {};
#pragma unroll
  for (int k = 0; k < kRounds<kParts>; ++k) {
    const int x = k * kParts + tid / kChannels;
    const int64_t p = begin + x;
    const int64_t at = min(max(p, int64_t{0}), length - 1);
    const float delta = __ldg(ssm.delta + at * ssm.delta_stride + c);
    const float source =
        attention.source_scale == nullptr
            ? 1.0f
            : __ldg(attention.source_scale + at * attention.source_stride + c);
    const float scale =
        attention.row_scale == nullptr
            ? 1.0f
            : __ldg(attention.row_scale + at * attention.row_stride + c);
    const bool exists = p == at && x < kDiagonal;
    const bool is_row = exists && x >= kShift;
    most.input = fmaxf(most.input, exists ? fabsf(delta * source) : 0.0f);
    most.scale = fmaxf(most.scale, is_row ? fabsf(scale) : 0.0f);
    most.delta += is_row ? delta : 0.0f;
  }
  shared.most[tid / kChannels][tid % kChannels] = most;
  __syncthreads();
  if (tid < 2 * kFoldStates) {
    const int n = tid % kFoldStates;
    const bool is_b = tid < kFoldStates;
    const auto& parts = is_b ? shared.b : shared.c;
    float of_state = 0;
#pragma unroll
    for (int part = 0; part < kStateParts; ++part) {
      of_state = fmaxf(of_state, parts[part][n]);
    }
    (is_b ? shared.b_most : shared.c_most)[n] = of_state;
  }
  __syncthreads();
  if (tid >= kChannels || !own) return;

  for (int part = 1; part < kParts; ++part) {
    const Most& other = shared.most[part][tid];
    most.input = fmaxf(most.input, other.input);
    most.scale = fmaxf(most.scale, other.scale);
    most.delta += other.delta;
  }
  BlockFactors& out = group.FactorsAt(channel, block);
  float b_most = 0, c_most = 0;
#pragma unroll
  for (int n = 0; n < kFoldStates; ++n) {
    b_most = fmaxf(b_most, shared.b_most[n]);
    c_most = fmaxf(c_most, shared.c_most[n]);
    out.columns.rate[n] =
        n < num_states ? __ldg(ssm.a + c * num_states + n) * kLog2E : 0.0f;
  }
  out.query_bound = most.scale * c_most;
  float taps[kTaps], sum_taps = 0;
  LoadTaps(attention.conv_weight, attention.conv_width, c, taps);
#pragma unroll
  for (int d = 0; d < kTaps; ++d) {
    out.columns.taps[d] = taps[d];
    sum_taps += fabsf(taps[d]);
  }
  const float bound = most.input * b_most * sum_taps;
  out.columns.bound = bound;
  out.columns.unit = 1 / PowerOfTwoScale(bound, 13);
  out.columns.skip = ssm.skip == nullptr ? 0.0f : ssm.skip[c];
  out.columns.weight =
      op.fold == ChannelFold::kWeightedSumAbs ? op.weight[c] : 1.0f;
  out.sum_delta = most.delta;
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
