// SPDX-License-Identifier: Apache-2.0
//
// SsmRowsFold: entries are folded while channels stand side by side, each lane
// of a register by itself, and the lanes joined once all channels have passed.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/aligned_buffer.h"
#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/fold_step.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/cpu/ssm_attention_recursive.h"
#include "server/kernels/rows.h"

namespace limpid::kernels::cpu {
namespace {

// Folds the tiles of one row of kWidth channels.
template <int kWidth, typename T>
struct RowFolder {
  const SsmRowsFold<T>& op;
  int64_t first;
  int count;
  T* folded;  // [L, kWidth]
  alignas(64) T weight[kWidth] = {};
  alignas(64) T product[kWidth] = {};
  alignas(64) T plain[kWidth] = {};

  struct Step {
    int count;
    int64_t columns;
    const T* tile;
    const T* weight;
    T* folded;

    template <ChannelFold kFold>
    LIMPID_INLINE void Run() const {
      for (int64_t j = 0; j < columns; ++j) {
        const T* const x = tile + j * kWidth;
        T* __restrict sum = folded + j * kWidth;
        if (count == kWidth) {
          LIMPID_KEEP_LOOP
          for (int w = 0; w < kWidth; ++w) {
            sum[w] = Folded<kFold>(sum[w], x[w], weight[w]);
          }
        } else {
          for (int w = 0; w < count; ++w) {
            sum[w] = Folded<kFold>(sum[w], x[w], weight[w]);
          }
        }
      }
    }
  };

  LIMPID_INLINE void Add(int64_t begin, int64_t columns, const T* before,
                         const T* tile) {
    WithFold(op.fold,
             Step{count, columns, tile, weight, folded + begin * kWidth});
    if (op.product == nullptr) return;
    for (int64_t j = 0; j < columns; ++j) {
      alignas(64) T value[kWidth];
      LoadLanes<kWidth>(op.value + (begin + j) * op.value_stride + first, count,
                        value);
      LIMPID_KEEP_LOOP
      for (int w = 0; w < kWidth; ++w) {
        product[w] += tile[j * kWidth + w] * value[w];
        plain[w] += before[j * kWidth + w];
      }
    }
  }

  LIMPID_INLINE void Finish(int64_t row) {
    if (op.product == nullptr) return;
    if (op.conv_bias != nullptr) {
      for (int w = 0; w < count; ++w) {
        product[w] += RowScale(op.attention, row, first + w) * plain[w] *
                      op.conv_bias[first + w];
      }
    }
    std::copy_n(
        product, count,
        op.product +
            (row - op.attention.row_begin) * op.attention.ssm.num_channels +
            first);
  }
};

// Joins what lanes have folded, and the zeros past the row.
template <int kWidth, typename T>
struct JoinLanes {
  const T* folded;  // [columns, kWidth]
  int lanes;
  int64_t columns;
  int64_t length;
  T* accumulator;

  template <ChannelFold kFold>
  LIMPID_INLINE void Run() const {
    constexpr bool kExtreme =
        kFold == ChannelFold::kMax || kFold == ChannelFold::kMin;
    constexpr ChannelFold kJoin = kExtreme ? kFold : ChannelFold::kSum;
    for (int64_t j = 0; j < columns; ++j) {
      for (int w = 0; w < lanes; ++w) {
        accumulator[j] =
            Folded<kJoin>(accumulator[j], folded[j * kWidth + w], T{1});
      }
    }
    for (int64_t j = columns; kExtreme && j < length; ++j) {
      accumulator[j] = Folded<kJoin>(accumulator[j], T{0}, T{1});
    }
  }
};

struct RowsFoldKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const SsmRowsFold<T>& op) {
    constexpr int kWidth = kChannelBlock<T, kBytes>;
    const SsmAttention<T>& attention = op.attention;
    const int64_t length = attention.ssm.num_positions;
    const int64_t begin = attention.channel_begin, end = attention.channel_end;
    AlignedBuffer<T> folded(length * kWidth);
    for (int64_t row = attention.row_begin; row < attention.row_end; ++row) {
      const int64_t columns = std::min(length, row / kTile * kTile + kTile);
      std::fill_n(folded.data(), columns * kWidth, EmptyFold<T>(op.fold));
      for (int64_t first = begin; first < end; first += kWidth) {
        const int count =
            static_cast<int>(std::min<int64_t>(kWidth, end - first));
        RowFolder<kWidth, T> folder{op, first, count, folded.data()};
        if (op.weight != nullptr) {
          std::copy_n(op.weight + first, count, folder.weight);
        }
        Recursive<kWidth>::Block(attention, first, count, row, folder);
        folder.Finish(row);
      }
      // All lanes but of very few channels hold something.
      const int lanes =
          static_cast<int>(std::min<int64_t>(kWidth, end - begin));
      WithFold(op.fold,
               JoinLanes<kWidth, T>{
                   folded.data(), lanes, columns, length,
                   op.accumulator + (row - attention.row_begin) * length});
    }
  }
};

}  // namespace

template <typename T>
absl::Status Run(const SsmRowsFold<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  if (op.attention.channel_begin == op.attention.channel_end) {
    return absl::OkStatus();
  }
  const FlushDenormals flush;
  DispatchSimd<T, RowsFoldKernel>(op);
  return absl::OkStatus();
}

template absl::Status Run(const SsmRowsFold<float>&);
template absl::Status Run(const SsmRowsFold<double>&);

}  // namespace limpid::kernels::cpu
