// SPDX-License-Identifier: Apache-2.0
//
// Implicit attention by running backwards from each row (spec: one row without
// the matrix). A block has one channel and kRows rows, one per thread, which
// share the decays exp(a delta_j) and keys delta_j b_j of a position through
// shared memory. Entries of a tile of positions are collected there as well, so
// that the convolution can look to the right and rows are written in one piece.
#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/ssm_attention.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

constexpr int kRows = 64;
// Positions whose entries are collected.
constexpr int kTile = 32;
// The tile, and to its right what the convolution of its last entries needs.
// Odd, so that the rows of a column are in different banks.
constexpr int kSpan = kTile + kMaxConvWidth - 1;
static_assert(kSpan % 2 == 1);
// Decays, and keys, in shared memory.
constexpr int kFactors = 512;

template <int kStates, typename T>
__global__ void __launch_bounds__(kRows)
    Attend(SsmAttention<T> op, int64_t row_blocks) {
  // Positions whose decays are made together.
  constexpr int kPart = kFactors / kStates < kTile ? kFactors / kStates : kTile;
  static_assert(kTile % kPart == 0);
  // Aligned, so that several are read at a time.
  __shared__ alignas(16) T decays[kPart * kStates];
  __shared__ alignas(16) T keys[kPart * kStates];
  __shared__ T entries[kRows][kSpan];
  __shared__ T taps[kMaxConvWidth];
  __shared__ T row_scales[kRows];
  const SelectiveSsm<T>& ssm = op.ssm;
  const int64_t length = ssm.num_positions;
  const int num_states = static_cast<int>(ssm.state_size);
  const int64_t channel = op.channel_begin + blockIdx.x / row_blocks;
  const int64_t first_row = op.row_begin + blockIdx.x % row_blocks * kRows;
  const int64_t last_row = min(first_row + kRows, op.row_end) - 1;
  const int64_t row = first_row + threadIdx.x;
  const int width =
      op.conv_weight == nullptr ? 1 : static_cast<int>(op.conv_width);
  const T skip = ssm.skip == nullptr ? T{0} : ssm.skip[channel];
  T* out =
      op.out + ((channel - op.channel_begin) * (op.row_end - op.row_begin) +
                first_row - op.row_begin) *
                   length;

  if (threadIdx.x < width) {
    taps[threadIdx.x] =
        op.conv_weight == nullptr
            ? T{1}
            : op.conv_weight[channel * width + width - 1 - threadIdx.x];
  }
  row_scales[threadIdx.x] = op.row_scale != nullptr && row <= last_row
                                ? op.row_scale[row * op.row_stride + channel]
                                : T{1};
  for (int x = 0; x < kSpan; ++x) entries[threadIdx.x][x] = 0;

  // Zero until the position is the row's own.
  T q[kStates];
#pragma unroll kUnroll<kStates>
  for (int n = 0; n < kStates; ++n) q[n] = 0;

  for (int64_t begin = (length - 1) / kTile * kTile; begin >= 0;
       begin -= kTile) {
    if (begin <= last_row) {
      for (int part = kTile - kPart; part >= 0; part -= kPart) {
        __syncthreads();
        for (int at = threadIdx.x; at < kPart * kStates; at += kRows) {
          const int64_t j = begin + part + at / kStates;
          const int n = at % kStates;
          const bool exists = j < length && n < num_states;
          const T delta =
              j < length ? ssm.delta[j * ssm.delta_stride + channel] : T{0};
          const T a = exists ? ssm.a[channel * num_states + n] : T{0};
          const T b = exists ? ssm.b[j * ssm.b_stride + n] : T{0};
          decays[at] = exp(delta * a);
          keys[at] = delta * b;
        }
        __syncthreads();
        for (int t = kPart - 1; t >= 0; --t) {
          const int64_t j = begin + part + t;
          if (j == row && row <= last_row) {
#pragma unroll kUnroll<kStates>
            for (int n = 0; n < kStates; ++n) {
              q[n] = n < num_states ? ssm.c[row * ssm.c_stride + n] : T{0};
            }
          }
          T sum = j == row ? skip : T{0};
#pragma unroll kUnroll<kStates>
          for (int n = 0; n < kStates; ++n) {
            sum += q[n] * keys[t * kStates + n];
            q[n] *= decays[t * kStates + n];
          }
          if (op.source_scale != nullptr && j < length) {
            sum *= op.source_scale[j * op.source_stride + channel];
          }
          entries[threadIdx.x][part + t] = sum;
        }
      }
    }
    __syncthreads();
    // Neighbouring threads write neighbouring positions.
    for (int at = threadIdx.x; at < kRows * kTile; at += kRows) {
      const int r = at / kTile;
      const int x = at % kTile;
      if (first_row + r <= last_row && begin + x < length) {
        T sum = 0;
        for (int d = 0; d < width; ++d) sum += taps[d] * entries[r][x + d];
        out[r * length + begin + x] = sum * row_scales[r];
      }
    }
    __syncthreads();
    for (int x = 0; x < kSpan - kTile; ++x) {
      entries[threadIdx.x][kTile + x] = entries[threadIdx.x][x];
    }
  }
}

}  // namespace

template <typename T>
absl::Status Run(const SsmAttention<T>& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const int64_t row_blocks = CeilDiv(op.row_end - op.row_begin, kRows);
  const int64_t num_blocks = (op.channel_end - op.channel_begin) * row_blocks;
  if (num_blocks == 0) return absl::OkStatus();
  if (op.row_end - op.row_begin <= kFewRows) {
    return RunRows(op, static_cast<cudaStream_t>(stream));
  }
  LIMPID_RETURN_IF_ERROR(CheckGrid("SsmAttention", num_blocks));
  return WithStateSize(op.ssm.state_size, [&]<int kStates>() {
    Attend<kStates, T><<<static_cast<unsigned>(num_blocks), kRows, 0,
                         static_cast<cudaStream_t>(stream)>>>(op, row_blocks);
    return CheckLaunch("SsmAttention");
  });
}

template absl::Status Run(const SsmAttention<float>&, void*);
template absl::Status Run(const SsmAttention<double>&, void*);

}  // namespace limpid::kernels::cuda
