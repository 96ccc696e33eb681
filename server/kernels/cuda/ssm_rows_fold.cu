// SPDX-License-Identifier: Apache-2.0
//
// SsmRowsFold: each row backwards from its own position as in
// ssm_attention_rows.cu, in segments that run side by side. One thread has a
// channel and a segment; neighbours are channels, over which entries are folded
// as soon as they are made. What blocks of channels give is joined after that.
#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/row_of_states.h"
#include "server/kernels/rows.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kChannels = 16;
constexpr int kSegments = 32;
constexpr int kThreads = kChannels * kSegments;

__host__ __device__ constexpr bool IsExtreme(ChannelFold fold) {
  return fold == ChannelFold::kMax || fold == ChannelFold::kMin;
}

// What an entry adds to a fold, and two folds as one.
template <typename T>
__device__ T Term(ChannelFold fold, T x, T weight) {
  switch (fold) {
    case ChannelFold::kSumAbs:
      return fabs(x);
    case ChannelFold::kSumPositive:
      return x > T{0} ? x : T{0};
    case ChannelFold::kSumSquares:
      return x * x;
    case ChannelFold::kWeightedSumAbs:
      return weight * fabs(x);
    default:
      return x;
  }
}
template <typename T>
__device__ T Join(ChannelFold fold, T a, T b) {
  if (fold == ChannelFold::kMax) return b > a ? b : a;
  if (fold == ChannelFold::kMin) return b < a ? b : a;
  return a + b;
}

template <int kTaps, int kStates, bool kWide, typename T>
__global__ void __launch_bounds__(kThreads) FoldRows(SsmRowsFold<T> op) {
  // Of delta over a segment, and without as many of its first positions as the
  // convolution looks to the right; then of what the product is made of.
  __shared__ T sums[kSegments][kChannels];
  __shared__ T tails[kSegments][kChannels];
  const SsmAttention<T>& attention = op.attention;
  const SelectiveSsm<T>& ssm = attention.ssm;
  const int num_states = static_cast<int>(ssm.state_size);
  const int lane = threadIdx.x % kChannels, segment = threadIdx.x / kChannels;
  // Those that work on the same segment.
  const unsigned group = 0xffffu << (threadIdx.x % 32 / kChannels * kChannels);
  const int64_t channel =
      attention.channel_begin + int64_t{blockIdx.x} * kChannels + lane;
  const bool own = channel < attention.channel_end;
  const int64_t c = own ? channel : attention.channel_end - 1;
  const int64_t row = attention.row_begin + blockIdx.y;
  const int width = attention.conv_weight == nullptr
                        ? 1
                        : static_cast<int>(attention.conv_width);
  const int right = width - 1;
  // No shorter than what a convolution looks to the right.
  const int64_t size = max(row / kSegments + 1, int64_t{right});
  const int64_t begin = min(segment * size, row + 1);
  const int64_t end = min(begin + size, row + 1);

  const auto delta_at = [&](int64_t j) {
    return __ldg(ssm.delta + j * ssm.delta_stride + c);
  };
  T sum = 0, tail = 0;
#pragma unroll 4
  for (int64_t j = begin; j < end; ++j) {
    const T delta = delta_at(j);
    sum += delta;
    if (j >= begin + right) tail += delta;
  }
  sums[segment][lane] = sum;
  tails[segment][lane] = tail;
  __syncthreads();

  // From the row to where this thread begins: to the right of its segment.
  T gap = segment + 1 < kSegments ? tails[segment + 1][lane] : T{0};
  for (int s = segment + 2; s < kSegments; ++s) gap += sums[s][lane];
  const int64_t last = min(end - 1 + right, row);
  const RowOfStates<kStates, kWide, T> c_row(ssm.c + row * ssm.c_stride,
                                             num_states);
  T a[kStates];
  T q[kStates];
#pragma unroll
  for (int n = 0; n < kStates; ++n) {
    a[n] = n < num_states ? Rate(ssm.a[c * num_states + n]) : T{0};
    q[n] = c_row[n] * Decay(a[n] * gap);
  }
  T taps[kTaps];
  T entries[kTaps] = {};  // of the positions from j on
#pragma unroll
  for (int d = 0; d < kTaps; ++d) {
    taps[d] = d >= width ? T{0}
              : attention.conv_weight == nullptr
                  ? T{1}
                  : attention.conv_weight[c * width + width - 1 - d];
  }
  const T skip = ssm.skip == nullptr ? T{0} : ssm.skip[c];
  const T row_scale = attention.row_scale == nullptr
                          ? T{1}
                          : attention.row_scale[row * attention.row_stride + c];
  const T weight = op.weight == nullptr ? T{1} : op.weight[c];
  const T empty = !IsExtreme(op.fold) ? T{0}
                  : op.fold == ChannelFold::kMax
                      ? static_cast<T>(EmptyFold<ChannelFold::kMax>())
                      : static_cast<T>(EmptyFold<ChannelFold::kMin>());
  T* const folded =
      op.scratch +
      (int64_t{blockIdx.x} * gridDim.y + blockIdx.y) * ssm.num_positions;
  T product = 0, plain = 0;
#pragma unroll 2
  for (int64_t j = last; j >= begin && begin < end; --j) {
    const T delta = delta_at(j);
    const RowOfStates<kStates, kWide, T> b(ssm.b + j * ssm.b_stride,
                                           num_states);
    T entry = 0;
#pragma unroll
    for (int n = 0; n < kStates; ++n) {
      entry += q[n] * b[n];
      q[n] *= Decay(delta * a[n]);
    }
    entry *= delta;
    if (j == row) entry += skip;
    if (attention.source_scale != nullptr) {
      entry *= __ldg(attention.source_scale + j * attention.source_stride + c);
    }
#pragma unroll
    for (int d = kTaps - 1; d > 0; --d) entries[d] = entries[d - 1];
    entries[0] = entry;
    if (j >= end) continue;
    plain += entry;
    T x = 0;
#pragma unroll
    for (int d = 0; d < kTaps; ++d) x += taps[d] * entries[d];
    x *= row_scale;
    if (op.product != nullptr) {
      product += x * __ldg(op.value + j * op.value_stride + c);
    }
    T term = own ? Term(op.fold, x, weight) : empty;
#pragma unroll
    for (int offset = kChannels / 2; offset > 0; offset /= 2) {
      term = Join(op.fold, term, __shfl_xor_sync(group, term, offset));
    }
    if (lane == 0) folded[j] = term;
  }
  for (int64_t j = row + 1 + threadIdx.x; j < ssm.num_positions;
       j += kThreads) {
    folded[j] = 0;
  }
  if (op.product == nullptr) return;
  __syncthreads();
  sums[segment][lane] = product;
  tails[segment][lane] = plain;
  __syncthreads();
  if (segment != 0 || !own) return;
  for (int s = 1; s < kSegments; ++s) {
    product += sums[s][lane];
    plain += tails[s][lane];
  }
  if (op.conv_bias != nullptr) product += row_scale * plain * op.conv_bias[c];
  op.product[blockIdx.y * ssm.num_channels + c] = product;
}

constexpr int kFewTaps = 4;

template <typename T>
int64_t NumBlocks(const SsmRowsFold<T>& op) {
  return CeilDiv(op.attention.channel_end - op.attention.channel_begin,
                 kChannels);
}

template <typename T>
int64_t NumEntries(const SsmRowsFold<T>& op) {
  return (op.attention.row_end - op.attention.row_begin) *
         op.attention.ssm.num_positions;
}

// Of blocks of channels into the accumulator.
template <typename T>
absl::Status JoinBlocks(const SsmRowsFold<T>& op, void* stream) {
  FoldChannels<T> join;
  join.fold = IsExtreme(op.fold) ? op.fold : ChannelFold::kSum;
  join.num_channels = NumBlocks(op);
  join.num_entries = NumEntries(op);
  join.slab = op.scratch;
  join.slab_stride = join.num_entries;
  join.accumulator = op.accumulator;
  return Run(join, stream);
}

}  // namespace

template <typename T>
bool CanFoldRows(const SsmRowsFold<T>& op) {
  return op.attention.ssm.state_size <= 16 &&
         (op.attention.conv_weight == nullptr ||
          op.attention.conv_width <= kFewTaps);
}

template <typename T>
int64_t RowsFoldScratch(const SsmRowsFold<T>& op) {
  return NumBlocks(op) * NumEntries(op);
}

template <typename T>
absl::Status Run(const SsmRowsFold<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const int64_t rows = op.attention.row_end - op.attention.row_begin;
  if (rows == 0 || NumBlocks(op) == 0) return absl::OkStatus();
  if (op.scratch == nullptr || !CanFoldRows(op)) {
    return MakeError(absl::StatusCode::kInternal, "KERNEL_ARGUMENT",
                     "SsmRowsFold: no scratch, or too many states or taps");
  }
  const dim3 grid(NumBlocks(op), rows);
  LIMPID_RETURN_IF_ERROR(WithRows(
      op.attention.ssm, [&]<int kStates, bool kWide>() -> absl::Status {
        if constexpr (kStates <= 16) {
          FoldRows<kFewTaps, kStates, kWide, T>
              <<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(op);
        }
        return CheckLaunch("SsmRowsFold");
      }));
  return JoinBlocks(op, stream);
}

template bool CanFoldRows(const SsmRowsFold<float>&);
template bool CanFoldRows(const SsmRowsFold<double>&);
template int64_t RowsFoldScratch(const SsmRowsFold<float>&);
template int64_t RowsFoldScratch(const SsmRowsFold<double>&);
template absl::Status Run(const SsmRowsFold<float>&, void*);
template absl::Status Run(const SsmRowsFold<double>&, void*);

}  // namespace limpid::kernels::cuda
