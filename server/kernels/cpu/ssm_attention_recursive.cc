// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/cpu/ssm_attention_recursive.h"

#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {
namespace {

// From channels side by side to positions side by side: `out` is the row of the
// first channel, and `plane` the distance to the same row of the next.
template <int kWidth, typename T>
struct RowWriter {
  int count;
  T* out;
  int64_t plane;

  LIMPID_INLINE void Add(int64_t begin, int64_t columns, const T*,
                         const T* tile) {
    for (int w = 0; w < count; ++w) {
      for (int64_t j = 0; j < columns; ++j) {
        out[w * plane + begin + j] = tile[j * kWidth + w];
      }
    }
  }
};

struct RecursiveKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const SsmAttention<T>& op) {
    constexpr int kWidth = kChannelBlock<T, kBytes>;
    const int64_t length = op.ssm.num_positions;
    const int64_t plane = (op.row_end - op.row_begin) * length;
    for (int64_t first = op.channel_begin; first < op.channel_end;
         first += kWidth) {
      const int count =
          static_cast<int>(std::min<int64_t>(kWidth, op.channel_end - first));
      T* const out = op.out + (first - op.channel_begin) * plane;
      for (int64_t row = op.row_begin; row < op.row_end; ++row) {
        RowWriter<kWidth, T> writer{count, out + (row - op.row_begin) * length,
                                    plane};
        Recursive<kWidth>::Block(op, first, count, row, writer);
        const int64_t end = std::min(length, row / kTile * kTile + kTile);
        for (int w = 0; w < count; ++w) {
          std::fill_n(writer.out + w * plane + end, length - end, T{0});
        }
      }
    }
  }
};

}  // namespace

template <typename T>
absl::Status RunRecursive(const SsmAttention<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const FlushDenormals flush;
  DispatchSimd<T, RecursiveKernel>(op);
  return absl::OkStatus();
}

template absl::Status RunRecursive(const SsmAttention<float>&);
template absl::Status RunRecursive(const SsmAttention<double>&);

}  // namespace limpid::kernels::cpu
