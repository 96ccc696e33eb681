// SPDX-License-Identifier: Apache-2.0
//
// SsmAttentionFold: its kernels one after the other. See ssm_fold.h for the
// formulas.
#include <cuda_runtime.h>

#include <cstdint>

#include "server/kernels/cuda/launch.h"
#include "server/kernels/cuda/ssm_fold.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {
namespace {

using Op = SsmAttentionFold<float>;

absl::Status RunTiles(const Op& op, const FoldGroup& group,
                      cudaStream_t stream) {
  if (group.num_tiles() == 0) return absl::OkStatus();
#ifdef LIMPID_WITH_HOPPER
  int device = 0, major = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor,
                             device) != cudaSuccess) {
    return CheckLaunch("SsmAttentionFold");
  }
  if (major == 9 && !op.portable) return FoldTilesOnHopper(op, group, stream);
#endif
  return FoldTiles(op, group, stream);
}

absl::Status RunGroup(const Op& op, const FoldGroup& group,
                      cudaStream_t stream) {
  LIMPID_RETURN_IF_ERROR(BoundFactors(op, group, stream));
  LIMPID_RETURN_IF_ERROR(FoldDiagonals(op, group, stream));
  if (group.products != nullptr) {
    LIMPID_RETURN_IF_ERROR(FoldProducts(op, group, stream));
  }
  return RunTiles(op, group, stream);
}

FoldPlan PlanOf(const Op& op) {
  const SsmAttention<float>& attention = op.attention;
  return FoldPlan({op.fold, op.num_sequences, attention.ssm.num_positions,
                   op.accumulator, op.product != nullptr, ShortRows()},
                  attention.channel_begin, attention.channel_end,
                  sizeof(BlockFactors));
}

}  // namespace

bool CanFold(const Op& op) {
  return DiagonalsFit() && op.attention.ssm.state_size <= kFoldStates &&
         (op.attention.conv_weight == nullptr ||
          op.attention.conv_width <= kTaps);
}

int64_t FoldScratchBytes(const Op& op) { return PlanOf(op).bytes(); }

absl::Status Run(const Op& op, void* stream) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  if (op.scratch == nullptr || op.attention.row_begin != 0 ||
      op.attention.row_end != op.attention.ssm.num_positions) {
    return MakeError(absl::StatusCode::kInternal, "KERNEL_ARGUMENT",
                     "SsmAttentionFold: no scratch, or not all rows");
  }
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  return PlanOf(op).ForEachGroup(
      op.scratch, cuda_stream, [&](const FoldParts& parts, char* factors) {
        const FoldGroup group{parts, reinterpret_cast<BlockFactors*>(factors)};
        return RunGroup(SequenceOf(op, parts.sequence_begin), group,
                        cuda_stream);
      });
}

}  // namespace limpid::kernels::cuda
