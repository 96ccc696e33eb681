// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/cpu/simd_math.h"
#include "server/kernels/ops.h"
#include "server/kernels/sequences.h"

namespace limpid::kernels::cpu {
namespace {

struct ConvKernel {
  // Channels in groups whose weights, turned around to [K, channels], stay in
  // the first cache while the positions go by.
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const CausalConv1d<T>& op) {
    constexpr int kGroup = 4 * kLanes<T, kBytes>;
    alignas(64) T weight[kMaxConvWidth * kGroup];
    alignas(64) T bias[kGroup] = {};
    for (int64_t first = 0; first < op.num_channels; first += kGroup) {
      const int count =
          static_cast<int>(std::min<int64_t>(kGroup, op.num_channels - first));
      for (int w = 0; w < count; ++w) {
        bias[w] = op.bias == nullptr ? T{0} : op.bias[first + w];
        for (int64_t k = 0; k < op.width; ++k) {
          weight[k * kGroup + w] = op.weight[(first + w) * op.width + k];
        }
      }
      for (int64_t b = 0; b < op.num_sequences; ++b) {
        const Span span = SpanOf(b, op.num_positions, op.begins);
        for (int64_t i = 0; i < span.size(); ++i) {
          alignas(64) T sum[kGroup];
          for (int w = 0; w < kGroup; ++w) sum[w] = bias[w];
          // Before position 0 there are zeros.
          for (int64_t k = std::max<int64_t>(0, op.width - 1 - i); k < op.width;
               ++k) {
            const T* x = Input(op, span, i - (op.width - 1) + k) + first;
            if (count == kGroup) {
              Add(kGroup, weight + k * kGroup, x, sum);
            } else {
              Add(count, weight + k * kGroup, x, sum);
            }
          }
          Store<kGroup>(op, sum, count,
                        (span.begin + i) * op.out_stride + first);
        }
      }
    }
  }

  template <typename T>
  static LIMPID_INLINE const T* Input(const CausalConv1d<T>& op,
                                      const Span& span, int64_t i) {
    const int64_t at = op.reversed ? span.end - 1 - i : span.begin + i;
    return op.x + at * op.x_stride;
  }

  template <int kGroup, typename T>
  static LIMPID_INLINE void Store(const CausalConv1d<T>& op, const T* sum,
                                  int count, int64_t at) {
    if (op.out != nullptr) std::copy_n(sum, count, op.out + at);
    if (op.ratio == nullptr && op.activated == nullptr) return;
    alignas(64) T ratio[kGroup];
    LIMPID_KEEP_LOOP
    for (int w = 0; w < kGroup; ++w) ratio[w] = Sigmoid(sum[w]);
    if (op.ratio != nullptr) std::copy_n(ratio, count, op.ratio + at);
    if (op.activated == nullptr) return;
    for (int w = 0; w < count; ++w) op.activated[at + w] = ratio[w] * sum[w];
  }

  template <typename T>
  static LIMPID_INLINE void Add(int count, const T* weight, const T* x,
                                T* __restrict sum) {
    for (int w = 0; w < count; ++w) sum[w] += weight[w] * x[w];
  }
};

}  // namespace

template <typename T>
absl::Status Run(const CausalConv1d<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const FlushDenormals flush;
  DispatchSimd<T, ConvKernel>(op);
  return absl::OkStatus();
}

template absl::Status Run(const CausalConv1d<float>&);
template absl::Status Run(const CausalConv1d<double>&);

}  // namespace limpid::kernels::cpu
