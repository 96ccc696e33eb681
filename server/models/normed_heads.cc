// SPDX-License-Identifier: Apache-2.0
#include "server/models/normed_heads.h"

#include <ATen/ATen.h>

#include <utility>

#include "server/models/factored_attention.h"

namespace limpid {

std::vector<AttentionForm> NormedHeadForms() {
  return {AttentionForm::kFull, AttentionForm::kState, AttentionForm::kNoGate,
          AttentionForm::kNoNorm};
}

at::Tensor RunNormedHeads(const FrozenRecurrence& recurrence,
                          const at::Tensor& value, const at::Tensor& direct,
                          const at::Tensor& gate, const HeadNorm& norm,
                          const at::Tensor& stream,
                          const OutputProjection& projection, Pass& pass) {
  const int64_t batch = value.size(0), length = value.size(1);
  const int64_t heads = recurrence.key.size(2);
  const auto by_norm = [&](const at::Tensor& tensor) {
    return tensor.view({tensor.size(0), length, heads / norm.split, -1});
  };
  const at::Tensor raw =
      by_norm(StateScan(recurrence, value.view({batch, length, heads, -1}),
                        pass.packing)
                  .view(value.sizes()));
  const at::Tensor centred = raw - raw.mean(-1, /*keepdim=*/true);
  const at::Tensor inverse =
      at::rsqrt(centred.square().mean(-1, /*keepdim=*/true) + norm.epsilon);
  const at::Tensor scale = pass.Factor(
      inverse.expand(raw.sizes()).reshape(value.sizes()) * norm.affine.weight);
  at::Tensor normed = centred.reshape(value.sizes()) * scale + norm.affine.bias;
  if (direct.defined()) normed = normed + direct;
  const at::Tensor output = normed * gate;
  if (pass.visits()) {
    DirectionTrace direction;
    direction.recurrence =
        MakeRecurrenceOperator(recurrence, value.size(2) / heads, at::Tensor());
    const at::Tensor values = by_norm(value);
    BlockTrace trace;
    trace.directions.push_back(std::move(direction));
    trace.x = (values - values.mean(-1, /*keepdim=*/true)).view(value.sizes());
    trace.uncentred = value;
    trace.norm = scale;
    trace.norm_bias = norm.affine.bias;
    trace.direct = direct;
    trace.gate = gate;
    trace.output = output;
    trace.projection = projection;
    trace.stream = stream;
    VisitBlocks(pass, std::move(trace));
  }
  return output;
}

void AddNormedHeadsCost(int64_t length, int64_t inner, int64_t key_size,
                        LayerCost& cost) {
  cost.forward += length * 16 * inner;
  cost.gradient += length * 16 * inner;
  // Gradients of six operands, and the states that the backward pass keeps of
  // every so many positions.
  cost.backward += length * 24 * inner + 160 * key_size * inner;
  cost.map += 10 * inner * length;
  cost.flops += length * inner * (8.0 * key_size + 60);
  cost.entry_flops += 4;
}

}  // namespace limpid
