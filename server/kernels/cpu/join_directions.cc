// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/fold_step.h"
#include "server/kernels/ops.h"
#include "server/kernels/ssm_diagonal.h"

namespace limpid::kernels::cpu {
namespace {

template <typename T>
struct FoldDiagonal {
  const JoinDirections<T>& op;
  const SsmDiagonal<T>&ahead, &back;
  T& sum;

  template <ChannelFold kFold>
  LIMPID_INLINE void Run() const {
    const int64_t channels = op.ahead.attention.ssm.num_channels;
    for (int64_t c = 0; c < channels; ++c) {
      const T weight =
          kFold == ChannelFold::kWeightedSumAbs ? op.ahead.weight[c] : T{1};
      sum = Folded<kFold>(sum, ahead.At(c) + back.At(c), weight);
    }
  }
};

}  // namespace

template <typename T>
absl::Status Run(const JoinDirections<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  const FlushDenormals flush;
  const int64_t length = op.ahead.attention.ssm.num_positions;
  for (int64_t row = op.row_begin; row < op.row_end; ++row) {
    const int64_t sequence = row / length, i = row % length;
    const int64_t turned = (sequence + 1) * length - 1 - i;
    T* const out = op.out + row * length;
    std::copy_n(op.ahead.accumulator + row * length, i, out);
    const SsmDiagonal<T> ahead(op.ahead, sequence, i);
    const SsmDiagonal<T> back(op.back, sequence, length - 1 - i);
    out[i] = EmptyFold<T>(op.ahead.fold);
    WithFold(op.ahead.fold, FoldDiagonal<T>{op, ahead, back, out[i]});
    std::reverse_copy(op.back.accumulator + turned * length,
                      op.back.accumulator + turned * length + length - 1 - i,
                      out + i + 1);
  }
  return absl::OkStatus();
}

template absl::Status Run(const JoinDirections<float>&);
template absl::Status Run(const JoinDirections<double>&);

}  // namespace limpid::kernels::cpu
