// SPDX-License-Identifier: Apache-2.0
//
// SelectiveScan with 16 states in float32: a quad of lanes has a channel, four
// states each, and takes four positions at a time. What belongs to a position
// and has no state is the work of one lane of the quad: it loads the position's
// numbers, hands them round, and gets the sum over states back.
#include <cstdint>
#include <limits>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/row_of_states.h"
#include "server/kernels/cuda/selective_scan.h"
#include "server/kernels/cuda/warp.h"
#include "server/kernels/ops.h"
#include "server/kernels/sequences.h"

namespace limpid::kernels::cuda {
namespace {

using Op = SelectiveScan<float>;

constexpr int kBytes = sizeof(float);
constexpr int kStates = kWideStates;
constexpr int kQuad = 4;
constexpr int kChannels = 32 / kQuad;  // of a warp, and of a block of threads
// Warps that a device should have: as many as hide each other's loads on 132
// multiprocessors, and no more, since segments are work of their own.
constexpr int64_t kWantedWarps = 132 * 8;

__device__ float4 LoadFour(const float* from) {
  return __ldg(reinterpret_cast<const float4*>(from));
}

// Rows from a sequence's first position on, a column of each. Counted, and
// apart, by 32 bits, so that an address takes one instruction.
template <typename T>
class Rows {
 public:
  __device__ Rows(T* data, int64_t stride, int64_t first, int64_t column)
      : first_(reinterpret_cast<intptr_t>(data + first * stride + column)),
        stride_(static_cast<int>(stride * sizeof(T))),
        exist_(data != nullptr) {}
  __device__ bool exist() const { return exist_; }
  __device__ T* operator[](int row) const {
    return reinterpret_cast<T*>(first_ + int64_t{row} * stride_);
  }

 private:
  const intptr_t first_;
  const int stride_;  // bytes
  const bool exist_;
};

// What one lane has of a channel and position.
struct Own {
  float delta = 0, u = 0, added = 0, gate_input = 0;
};

// What a lane's states have of four positions.
struct Weights {
  float4 b[kQuad], c[kQuad];
};

// A lane's share of a channel in positions [begin, end) of a sequence.
class Segment {
 public:
  __device__ Segment(const Op& op, const Span& sequence, int begin, int end,
                     int64_t channel)
      : begin_(begin),
        end_(end),
        lane_(threadIdx.x % kQuad),
        length_(static_cast<int>(sequence.size())),
        reversed_(op.reversed),
        delta_(op.ssm.delta, op.ssm.delta_stride, sequence.begin, channel),
        u_(op.u, op.u_stride, sequence.begin, channel),
        added_(op.added, op.y_stride, sequence.begin, channel),
        gate_inputs_(op.gate_input, op.gate_input_stride, sequence.begin,
                     channel),
        b_(op.ssm.b, op.ssm.b_stride, sequence.begin, kQuad * lane_),
        c_(op.ssm.c, op.ssm.c_stride, sequence.begin, kQuad * lane_) {
    const float4 a = LoadFour(op.ssm.a + channel * kStates + kQuad * lane_);
    rate_ = {Rate(a.x), Rate(a.y), Rate(a.z), Rate(a.w)};
  }

  // Of a lane's four states: x exp(a delta) + y.
  __device__ float4 Decayed(const float4& x, float delta,
                            const float4& y) const {
    return {fmaf(Decay(rate_.x * delta), x.x, y.x),
            fmaf(Decay(rate_.y * delta), x.y, y.y),
            fmaf(Decay(rate_.z * delta), x.z, y.z),
            fmaf(Decay(rate_.w * delta), x.w, y.w)};
  }

  // Where what belongs to the output of position i is.
  __device__ int OutputOf(int i) const {
    return reversed_ ? length_ - 1 - i : i;
  }

  // Moves the state through the segment. Calls visit(position, own, outputs),
  // all lanes of the warp together, with the lane's own position of the next
  // four, or one past the end, and its numbers; and with what the lane's states
  // give to each of the four. Returns the sum of delta over the lane's own
  // positions. With kAhead, b and c are loaded four positions ahead, too: where
  // a segment has a warp to itself there are registers for it, and few other
  // warps to wait with.
  template <bool kOutputs, bool kAhead, typename Visit>
  __device__ __forceinline__ float Walk(float4& state,
                                        const Visit& visit) const {
    float sum = 0;
    Own next = LoadOwn<kOutputs>(begin_);
    Weights next_weights;
    if (kAhead && begin_ < end_) next_weights = LoadWeights<kOutputs>(begin_);
    for (int i = begin_; i < end_; i += kQuad) {
      const Own own = next;
      // On their way while these are worked on.
      next = LoadOwn<kOutputs>(i + kQuad);
      const Weights weights = kAhead ? next_weights : LoadWeights<kOutputs>(i);
      if (kAhead) next_weights = LoadWeights<kOutputs>(i + kQuad);
      const auto& [b, c] = weights;
      const float own_input = own.delta * own.u;
      float outputs[kQuad];
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        const float input = __shfl_sync(kAllLanes, own_input, k, kQuad);
        state = Decayed(
            state, __shfl_sync(kAllLanes, own.delta, k, kQuad),
            {b[k].x * input, b[k].y * input, b[k].z * input, b[k].w * input});
        if (kOutputs) {
          outputs[k] = fmaf(
              c[k].w, state.w,
              fmaf(c[k].z, state.z, fmaf(c[k].y, state.y, c[k].x * state.x)));
        }
      }
      sum += own.delta;
      if constexpr (kOutputs) visit(i + lane_, own, outputs);
    }
    return sum;
  }

 private:
  // Past the end nothing decays and nothing enters.
  template <bool kOutputs>
  __device__ Own LoadOwn(int i) const {
    const int at = i + lane_;
    Own own;
    if (at >= end_) return own;
    own.delta = __ldg(delta_[at]);
    own.u = __ldg(u_[at]);
    if (!kOutputs) return own;
    if (added_.exist()) own.added = *added_[OutputOf(at)];
    if (gate_inputs_.exist()) {
      own.gate_input = __ldg(gate_inputs_[OutputOf(at)]);
    }
    return own;
  }

  // Past the end those of the last position, for inputs of zero.
  template <bool kOutputs>
  __device__ Weights LoadWeights(int i) const {
    Weights weights;
#pragma unroll
    for (int k = 0; k < kQuad; ++k) {
      const int row = min(i + k, end_ - 1);
      weights.b[k] = LoadFour(b_[row]);
      if (kOutputs) weights.c[k] = LoadFour(c_[row]);
    }
    return weights;
  }

  const int begin_, end_, lane_, length_;
  const bool reversed_;
  const Rows<const float> delta_, u_, added_, gate_inputs_, b_, c_;
  float4 rate_;
};

// A warp has the same channels in one of kParts segments.
template <int kParts>
__global__ void __launch_bounds__(32 * kParts, kParts == 1 ? 16 : 32 / kParts)
    ScanQuads(Op op, unsigned channel_blocks) {
  __shared__ float4 borders[kParts][32];
  __shared__ float sums[kParts][32];
  const SelectiveSsm<float>& ssm = op.ssm;
  const int lane = threadIdx.x % 32;
  const int part = WarpIndex();
  const Span sequence =
      SpanOf(blockIdx.x / channel_blocks, ssm.num_positions, op.begins);
  // Channels past the last one repeat it and write nothing.
  const int64_t channel = op.channel_begin +
                          int64_t{blockIdx.x % channel_blocks} * kChannels +
                          lane / kQuad;
  const int64_t c = min(channel, op.channel_end - 1);
  const int begin = static_cast<int>(sequence.size() * part / kParts);
  const int end = static_cast<int>(sequence.size() * (part + 1) / kParts);
  const Segment segment(op, sequence, begin, end, c);

  float4 state = {0, 0, 0, 0};
  if constexpr (kParts > 1) {
    float sum = segment.Walk<false, false>(state, [] {});
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    sums[part][lane] = sum;
    borders[part][lane] = state;
    __syncthreads();
    // What enters each segment, in place of what leaves it.
    if (part == 0) {
      float4 carried = {0, 0, 0, 0};
#pragma unroll
      for (int s = 0; s < kParts; ++s) {
        const float4 leaves = borders[s][lane];
        borders[s][lane] = carried;
        carried = segment.Decayed(carried, sums[s][lane], leaves);
      }
    }
    __syncthreads();
    state = borders[part][lane];
  }
  const float skip = ssm.skip != nullptr ? ssm.skip[c] : 0.0f;
  const Rows<float> y_rows(op.y, op.y_stride, sequence.begin, c);
  const Rows<float> gates(op.gate, ssm.num_channels, sequence.begin, c);
  const bool is_gated = op.gate_input != nullptr;
  segment.Walk<true, kParts == 1>(
      state, [&](int i, const Own& own, const float(&outputs)[kQuad]) {
        float y = fmaf(skip, own.u, SumOfQuad(outputs, lane % kQuad));
        if (i >= end || channel >= op.channel_end) return;
        const int at = segment.OutputOf(i);
        y = (y + own.added) * op.scale;
        if (is_gated) {
          const float gate = Silu(own.gate_input);
          y *= gate;
          if (gates.exist()) *gates[at] = gate;
        }
        *y_rows[at] = y;
      });
}

}  // namespace

bool CanScanQuads(const Op& op) {
  const auto fits = [](int64_t number) {
    return number <= std::numeric_limits<int>::max() / kBytes;
  };
  return HasWideRows(op.ssm) &&
         reinterpret_cast<uintptr_t>(op.ssm.a) % 16 == 0 &&
         fits(op.ssm.num_positions) && fits(op.ssm.delta_stride) &&
         fits(op.ssm.b_stride) && fits(op.ssm.c_stride) && fits(op.u_stride) &&
         fits(op.y_stride) && fits(op.gate_input_stride) &&
         fits(op.ssm.num_channels);
}

absl::Status ScanInQuads(const Op& op, cudaStream_t stream) {
  const int64_t channel_blocks =
      CeilDiv(op.channel_end - op.channel_begin, kChannels);
  const int64_t num_blocks = channel_blocks * op.num_sequences;
  if (num_blocks == 0) return absl::OkStatus();
  LIMPID_RETURN_IF_ERROR(CheckGrid("SelectiveScan", num_blocks));
  const auto launch = [&]<int kParts>() {
    ScanQuads<kParts>
        <<<static_cast<unsigned>(num_blocks), 32 * kParts, 0, stream>>>(
            op, static_cast<unsigned>(channel_blocks));
    return CheckLaunch("SelectiveScan");
  };
  const int64_t parts = kWantedWarps / num_blocks;
  if (parts < 2) return launch.template operator()<1>();
  if (parts < 4) return launch.template operator()<4>();
  return launch.template operator()<16>();
}

}  // namespace limpid::kernels::cuda
