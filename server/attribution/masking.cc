// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/masking.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace limpid {
namespace {

// More sequences at once do not pay on any device seen so far.
constexpr int64_t kMostVariants = 64;

int64_t BatchSize(const Network& network, int64_t length, int64_t memory_bytes,
                  int64_t variants) {
  const int64_t each = std::max<int64_t>(1, network.ForwardBytes(1, length));
  return std::clamp<int64_t>(memory_bytes / each, 1,
                             std::min(kMostVariants, variants));
}

}  // namespace

absl::StatusOr<at::Tensor> ScoreVariants(const AttributionContext& context,
                                         const at::Tensor& replacement,
                                         const at::Tensor& replaced,
                                         const std::vector<MaskedScore>& scores,
                                         const ProgressFunction& progress,
                                         const CancelToken& cancel) {
  const at::Tensor& input = context.embeddings;
  const int64_t variants = replaced.size(0);
  const int64_t batch = BatchSize(context.network, context.length(),
                                  context.memory_bytes, variants);
  std::vector<int64_t> readouts;
  for (const MaskedScore& one : scores) readouts.push_back(one.readout);
  at::Tensor result =
      at::empty({variants, static_cast<int64_t>(scores.size())}, at::kDouble);
  for (int64_t first = 0; first < variants; first += batch) {
    const int64_t count = std::min(batch, variants - first);
    const at::Tensor mask =
        replaced.narrow(0, first, count).to(input.device()).unsqueeze(2);
    LIMPID_ASSIGN_OR_RETURN(
        const at::Tensor answers,
        context.network.Forward(at::where(mask, replacement, input), readouts,
                                LayerVisitor(), cancel));
    for (size_t i = 0; i < scores.size(); ++i) {
      const auto place = static_cast<int64_t>(i);
      result.narrow(0, first, count)
          .select(1, place)
          .copy_(scores[i].score(answers.select(1, place)));
    }
    LIMPID_RETURN_IF_ERROR(progress(first + count, variants));
  }
  return result;
}

MethodCost CostOfVariants(const CostQuery& query, int64_t num_variants) {
  const int64_t batch =
      BatchSize(query.network, query.length, query.memory_bytes, num_variants);
  return {num_variants * query.network.ForwardFlops(query.length),
          query.network.ForwardBytes(batch, query.length) +
              num_variants * (query.length + 8 * query.num_points())};
}

}  // namespace limpid
