// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/fold_step.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {
namespace {

// Entries whose accumulators stay in the first cache while all channels pass.
constexpr int64_t kBlock = 1024;

template <typename T>
struct FoldSlab {
  const FoldChannels<T>& op;

  template <ChannelFold kFold>
  LIMPID_INLINE void Run() const {
    for (int64_t begin = 0; begin < op.num_entries; begin += kBlock) {
      const int64_t size = std::min(kBlock, op.num_entries - begin);
      T* __restrict sum = op.accumulator + begin;
      for (int64_t c = 0; c < op.num_channels; ++c) {
        const T* slab = op.slab + c * op.slab_stride + begin;
        const T weight =
            kFold == ChannelFold::kWeightedSumAbs ? op.weight[c] : T{1};
        for (int64_t e = 0; e < size; ++e) {
          sum[e] = Folded<kFold>(sum[e], slab[e], weight);
        }
      }
    }
  }
};

struct FoldKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(const FoldChannels<T>& op) {
    WithFold(op.fold, FoldSlab<T>{op});
  }
};

}  // namespace

template <typename T>
absl::Status Run(const FoldChannels<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const FlushDenormals flush;
  DispatchSimd<T, FoldKernel>(op);
  return absl::OkStatus();
}

template absl::Status Run(const FoldChannels<float>&);
template absl::Status Run(const FoldChannels<double>&);

}  // namespace limpid::kernels::cpu
