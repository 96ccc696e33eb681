// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/attention_pass.h"

#include <ATen/ATen.h>

namespace limpid {

absl::Status VisitReduced(
    const AttributionContext& context, ChannelReduction reduction,
    RowRange rows, int64_t start_layer,
    const std::function<void(int64_t layer, const at::Tensor& matrix)>&
        on_layer,
    const CancelToken& cancel) {
  const auto visit = [&](int64_t layer, int64_t,
                         const BlockAttention& attention) -> absl::Status {
    if (layer < start_layer) return absl::OkStatus();
    ChannelReducer reducer(reduction, attention, rows);
    LIMPID_RETURN_IF_ERROR(ReduceChannels(attention, context.form, rows,
                                          {&reducer}, nullptr, cancel));
    on_layer(layer, reducer.Finish().to(context.embeddings.device()));
    return absl::OkStatus();
  };
  return context.network
      .Forward(context.embeddings, {context.positions.front()}, visit, cancel)
      .status();
}

}  // namespace limpid
