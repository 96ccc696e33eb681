// SPDX-License-Identifier: Apache-2.0
//
// SsmAttentionFold: the chunked algorithm's rows are folded and multiplied
// while they are in the first cache.
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/aligned_buffer.h"
#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/fold_step.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/cpu/ssm_attention_chunked.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {
namespace {

template <typename T>
struct FoldWork {
  explicit FoldWork(const SsmAttentionFold<T>& op)
      : op(op),
        entries(op.attention),
        rows(kChunk * op.attention.ssm.num_positions),
        value(op.attention.ssm.num_positions) {}

  const SsmAttentionFold<T>& op;
  Workspace<T> entries;
  AlignedBuffer<T> rows;   // [kChunk, L] of the current channel
  AlignedBuffer<T> value;  // [L] of the current channel
};

// One row: the first `columns` entries are folded and multiplied; the others
// are zeros.
template <int kLanes, typename T>
struct FoldRow {
  const T* entries;
  const T* value;  // null: no product is wanted
  int64_t columns;
  int64_t length;
  T weight;
  T* accumulator;
  T* product;

  template <ChannelFold kFold>
  LIMPID_INLINE void Run() const {
    T* __restrict sum = accumulator;
    const int64_t whole = columns / kLanes * kLanes;
    if (value != nullptr) {
      alignas(64) T lanes[kLanes] = {};
      for (int64_t j = 0; j < whole; j += kLanes) {
        for (int w = 0; w < kLanes; ++w) {
          const T x = entries[j + w];
          sum[j + w] = Folded<kFold>(sum[j + w], x, weight);
          lanes[w] += x * value[j + w];
        }
      }
      T total = 0;
      for (int w = 0; w < kLanes; ++w) total += lanes[w];
      for (int64_t j = whole; j < columns; ++j) {
        total += entries[j] * value[j];
      }
      *product = total;
    } else {
      for (int64_t j = 0; j < whole; ++j) {
        sum[j] = Folded<kFold>(sum[j], entries[j], weight);
      }
    }
    for (int64_t j = whole; j < columns; ++j) {
      sum[j] = Folded<kFold>(sum[j], entries[j], weight);
    }
    constexpr bool kExtreme =
        kFold == ChannelFold::kMax || kFold == ChannelFold::kMin;
    for (int64_t j = columns; kExtreme && j < length; ++j) {
      sum[j] = Folded<kFold>(sum[j], T{0}, weight);
    }
  }
};

template <int kBytes, typename T>
struct RowFolder {
  FoldWork<T>& work;
  int64_t channel = 0;
  T weight = 1;

  LIMPID_INLINE void Begin(int64_t index) {
    const SsmAttentionFold<T>& op = work.op;
    channel = index;
    if (op.weight != nullptr) weight = op.weight[channel];
    if (op.product == nullptr) return;
    for (int64_t j = 0; j < op.attention.row_end; ++j) {
      work.value[j] = op.value[j * op.value_stride + channel];
    }
  }
  LIMPID_INLINE T* Rows(int64_t) const { return work.rows.data(); }
  LIMPID_INLINE void Done(int64_t row, int count) const {
    const SsmAttentionFold<T>& op = work.op;
    const int64_t length = op.attention.ssm.num_positions;
    const int64_t channels = op.attention.ssm.num_channels;
    const bool measures = op.product != nullptr;
    for (int i = 0; i < count; ++i) {
      const int64_t at = row + i - op.attention.row_begin;
      WithFold(op.fold,
               FoldRow<2 * kLanes<T, kBytes>, T>{
                   work.rows.data() + i * length,
                   measures ? work.value.data() : nullptr, row + i + 1, length,
                   weight, op.accumulator + at * length,
                   measures ? op.product + at * channels + channel : nullptr});
    }
  }
};

struct FoldKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(FoldWork<T>* const& work) {
    RowFolder<kBytes, T> folder{*work};
    Chunked<kBytes>::Call(work->entries, folder);
  }
};

}  // namespace

template <typename T>
absl::Status Run(const SsmAttentionFold<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  if (op.attention.row_begin == op.attention.row_end) return absl::OkStatus();
  const FlushDenormals flush;
  FoldWork<T> work(op);
  DispatchSimd<T, FoldKernel>(&work);
  return absl::OkStatus();
}

template absl::Status Run(const SsmAttentionFold<float>&);
template absl::Status Run(const SsmAttentionFold<double>&);

}  // namespace limpid::kernels::cpu
