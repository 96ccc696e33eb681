// SPDX-License-Identifier: Apache-2.0
//
// Adjoint of the recurrence (spec: appendix A), for blocks of as many channels
// as a register holds. The states of all positions would be L N numbers per
// channel; kept are those before every kChunk-th position, from which the
// states inside a chunk are made again when the adjoint, which runs backwards,
// comes to it.
//
// All blocks go through a chunk before the chunk before it, so that the sums
// over channels can be made lane by lane: the lanes are added up once per
// chunk.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/cpu/simd_math.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {
namespace {

constexpr int64_t kChunk = 16;

// Sizes in numbers of what is in the scratch memory, in this order.
struct Layout {
  int64_t state;  // one block's state
  int64_t num_blocks;
  int64_t num_chunks;
  int64_t weights() const { return num_blocks * state; }
  int64_t adjoints() const { return num_blocks * state; }
  int64_t checkpoints() const { return num_chunks * num_blocks * state; }
  // States before each position of a chunk, its decays, its db and its dc.
  int64_t chunk() const { return kChunk * state; }
  int64_t total() const {
    return weights() + adjoints() + checkpoints() + 4 * chunk();
  }
};

template <typename T>
Layout MakeLayout(const SelectiveSsm<T>& ssm, int64_t num_channels,
                  int64_t width) {
  return {ssm.state_size * width, (num_channels + width - 1) / width,
          (ssm.num_positions + kChunk - 1) / kChunk};
}

template <int kWidth, typename T>
class Backward {
 public:
  LIMPID_INLINE explicit Backward(const SelectiveScanBackward<T>& op)
      : op_(op),
        ssm_(op.ssm),
        layout_(MakeLayout(ssm_, op.channel_end - op.channel_begin, kWidth)),
        weights_(op.scratch),
        adjoints_(weights_ + layout_.weights()),
        checkpoints_(adjoints_ + layout_.adjoints()),
        before_(checkpoints_ + layout_.checkpoints()),
        decays_(before_ + layout_.chunk()),
        db_(decays_ + layout_.chunk()),
        dc_(db_ + layout_.chunk()) {}

  LIMPID_INLINE void Run() {
    for (int64_t block = 0; block < layout_.num_blocks; ++block) {
      StartBlock(block);
    }
    for (int64_t chunk = layout_.num_chunks - 1; chunk >= 0; --chunk) {
      const int64_t begin = chunk * kChunk;
      const int64_t end = std::min(begin + kChunk, ssm_.num_positions);
      std::fill_n(db_, 2 * layout_.chunk(), T{0});
      for (int64_t block = 0; block < layout_.num_blocks; ++block) {
        BlockOfChunk(block, begin, end);
      }
      AddUp(db_, end - begin, op_.db + begin * ssm_.state_size);
      AddUp(dc_, end - begin, op_.dc + begin * ssm_.state_size);
    }
  }

 private:
  LIMPID_INLINE int64_t First(int64_t block) const {
    return op_.channel_begin + block * kWidth;
  }
  LIMPID_INLINE int Count(int64_t block) const {
    return static_cast<int>(
        std::min<int64_t>(kWidth, op_.channel_end - First(block)));
  }
  LIMPID_INLINE T* Checkpoint(int64_t begin, int64_t block) const {
    return checkpoints_ +
           (begin / kChunk * layout_.num_blocks + block) * layout_.state;
  }

  // Turns the weights around, and runs forward to fill the checkpoints.
  LIMPID_INLINE void StartBlock(int64_t block) {
    const int64_t first = First(block);
    const int count = Count(block);
    T* a = weights_ + block * layout_.state;
    for (int64_t n = 0; n < ssm_.state_size; ++n) {
      for (int w = 0; w < kWidth; ++w) {
        a[n * kWidth + w] =
            w < count ? ssm_.a[(first + w) * ssm_.state_size + n] : T{0};
      }
    }
    std::fill_n(adjoints_ + block * layout_.state, layout_.state, T{0});
    alignas(64) T state[kMaxStateSize * kWidth];
    std::fill_n(state, layout_.state, T{0});
    for (int64_t i = 0; i < ssm_.num_positions; ++i) {
      if (i % kChunk == 0) {
        std::copy_n(state, layout_.state, Checkpoint(i, block));
      }
      // What it notes is not needed yet: all to the same place.
      Forward(first, count, i, a, state, before_, decays_);
    }
  }

  LIMPID_INLINE void BlockOfChunk(int64_t block, int64_t begin, int64_t end) {
    const int64_t first = First(block);
    const int count = Count(block);
    const T* a = weights_ + block * layout_.state;
    alignas(64) T state[kMaxStateSize * kWidth];
    std::copy_n(Checkpoint(begin, block), layout_.state, state);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = (i - begin) * layout_.state;
      Forward(first, count, i, a, state, before_ + at, decays_ + at);
    }
    for (int64_t i = end - 1; i >= begin; --i) {
      const int64_t at = (i - begin) * layout_.state;
      Step(first, count, i, a, before_ + at, decays_ + at,
           adjoints_ + block * layout_.state, db_ + at, dc_ + at);
    }
  }

  // Moves `state` over position i; notes the state before it and the decays.
  LIMPID_INLINE void Forward(int64_t first, int count, int64_t i, const T* a,
                             T* __restrict state, T* __restrict before,
                             T* __restrict decays) const {
    alignas(64) T delta[kWidth];
    alignas(64) T input[kWidth];
    LoadLanes<kWidth>(ssm_.delta + i * ssm_.delta_stride + first, count, delta);
    LoadLanes<kWidth>(op_.u + i * op_.u_stride + first, count, input);
    LIMPID_KEEP_LOOP
    for (int w = 0; w < kWidth; ++w) input[w] *= delta[w];
    const T* b = ssm_.b + i * ssm_.b_stride;
    for (int64_t n = 0; n < ssm_.state_size; ++n) {
      const T b_n = b[n];
      LIMPID_IVDEP
      for (int w = 0; w < kWidth; ++w) {
        const int64_t at = n * kWidth + w;
        const T decay = ExpNonPositive(delta[w] * a[at]);
        const T s = state[at];
        before[at] = s;
        decays[at] = decay;
        state[at] = decay * s + input[w] * b_n;
      }
    }
  }

  // Gradients of position i. `adjoint` is that of the state after position i
  // but for what y_i adds, and becomes that of the state before it.
  LIMPID_INLINE void Step(int64_t first, int count, int64_t i, const T* a,
                          const T* before, const T* decays,
                          T* __restrict adjoint, T* __restrict db,
                          T* __restrict dc) const {
    alignas(64) T delta[kWidth];
    alignas(64) T u[kWidth];
    alignas(64) T dy[kWidth];
    alignas(64) T skip[kWidth] = {};
    LoadLanes<kWidth>(ssm_.delta + i * ssm_.delta_stride + first, count, delta);
    LoadLanes<kWidth>(op_.u + i * op_.u_stride + first, count, u);
    LoadLanes<kWidth>(op_.dy + i * op_.dy_stride + first, count, dy);
    if (ssm_.skip != nullptr) LoadLanes<kWidth>(ssm_.skip + first, count, skip);
    const T* b = ssm_.b + i * ssm_.b_stride;
    const T* c = ssm_.c + i * ssm_.c_stride;
    alignas(64) T through_b[kWidth] = {};
    alignas(64) T through_decay[kWidth] = {};
    for (int64_t n = 0; n < ssm_.state_size; ++n) {
      const T b_n = b[n];
      const T c_n = c[n];
      LIMPID_IVDEP
      for (int w = 0; w < kWidth; ++w) {
        const int64_t at = n * kWidth + w;
        const T decayed = decays[at] * before[at];
        const T input = delta[w] * u[w];
        const T gradient = adjoint[at] + dy[w] * c_n;
        dc[at] += dy[w] * (decayed + input * b_n);
        db[at] += gradient * input;
        through_b[w] += gradient * b_n;
        through_decay[w] += gradient * a[at] * decayed;
        adjoint[at] = gradient * decays[at];
      }
    }
    alignas(64) T du[kWidth];
    alignas(64) T ddelta[kWidth];
    LIMPID_KEEP_LOOP
    for (int w = 0; w < kWidth; ++w) {
      du[w] = delta[w] * through_b[w] + skip[w] * dy[w];
      ddelta[w] = u[w] * through_b[w] + through_decay[w];
    }
    const int64_t at = i * ssm_.num_channels + first;
    StoreLanes<kWidth>(du, count, op_.du + at);
    StoreLanes<kWidth>(ddelta, count, op_.ddelta + at);
  }

  // out[i, n] += sum over the lanes.
  LIMPID_INLINE void AddUp(const T* lanes, int64_t positions, T* out) const {
    for (int64_t at = 0; at < positions * ssm_.state_size; ++at) {
      T sum = 0;
      for (int w = 0; w < kWidth; ++w) sum += lanes[at * kWidth + w];
      out[at] += sum;
    }
  }

  const SelectiveScanBackward<T>& op_;
  const SelectiveSsm<T>& ssm_;
  const Layout layout_;
  T* const weights_;
  T* const adjoints_;
  T* const checkpoints_;
  T* const before_;
  T* const decays_;
  T* const db_;
  T* const dc_;
};

struct BackwardKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const SelectiveScanBackward<T>& op) {
    Backward<kChannelBlock<T, kBytes>, T>(op).Run();
  }
};

}  // namespace

template <typename T>
int64_t SelectiveScanBackwardScratch(const SelectiveSsm<T>& ssm,
                                     int64_t num_channels) {
  // The same for any processor: what the widest registers need is the most.
  return MakeLayout(ssm, num_channels, kChannelBlock<T, kWideBytes>).total();
}

template <typename T>
absl::Status Run(const SelectiveScanBackward<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const FlushDenormals flush;
  DispatchSimd<T, BackwardKernel>(op);
  return absl::OkStatus();
}

template int64_t SelectiveScanBackwardScratch(const SelectiveSsm<float>&,
                                              int64_t);
template int64_t SelectiveScanBackwardScratch(const SelectiveSsm<double>&,
                                              int64_t);
template absl::Status Run(const SelectiveScanBackward<float>&);
template absl::Status Run(const SelectiveScanBackward<double>&);

}  // namespace limpid::kernels::cpu
