// SPDX-License-Identifier: Apache-2.0
#include "server/models/s6_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

namespace limpid {
namespace {

// Which factors a form holds.
struct Factors {
  bool conv;
  bool activation;
  bool gate;
  bool bias;
};

Factors FactorsOf(AttentionForm form) {
  switch (form) {
    case AttentionForm::kState:
      return {false, false, false, false};
    case AttentionForm::kNoConv:
      return {false, true, true, false};
    case AttentionForm::kNoGate:
      return {true, true, false, true};
    case AttentionForm::kNoActivation:
      return {true, false, true, true};
    case AttentionForm::kUpstream:
      return {true, true, true, false};
    default:
      return {true, true, true, true};
  }
}

}  // namespace

SlabShape ChooseSlab(int64_t num_channels, int64_t num_rows, int64_t length,
                     int64_t element_bytes, bool on_cpu) {
  // On the CPU a slab should still be in the cache when the sink reads it; on
  // a GPU it should fill the device.
  const int64_t budget =
      on_cpu ? int64_t{1} << 20 : int64_t{64} << 20;
  constexpr int64_t kFewestRows = 64;
  const int64_t row_bytes = length * element_bytes;
  SlabShape shape;
  shape.rows = std::min(num_rows, std::max(kFewestRows, budget / row_bytes));
  shape.channels = std::clamp<int64_t>(budget / (shape.rows * row_bytes), 1,
                                       num_channels);
  if (on_cpu) {
    shape.channels = std::min(
        num_channels, std::max<int64_t>(shape.channels, at::get_num_threads()));
  }
  return shape;
}

BlockMap S6Attention::Map(const MatrixForm& form) const {
  const Factors factors = FactorsOf(form.form);
  FrozenSsm ssm = trace_.ssm;
  if (!form.include_skip) ssm.skip = at::Tensor();
  const auto frozen = [&](const at::Tensor& u) {
    const at::Tensor y = SelectiveScan(ssm, u);
    return factors.gate ? y * trace_.gate : y;
  };

  BlockMap map;
  map.value = factors.conv         ? trace_.x
              : factors.activation ? trace_.conv
                                   : at::silu(trace_.conv);
  // What the bias of the convolution contributes once the factors are frozen.
  const bool has_bias = factors.bias && trace_.conv_bias.defined();
  if (has_bias) {
    const at::Tensor bias = trace_.conv_bias.expand_as(trace_.conv);
    map.bias = frozen(factors.activation ? at::sigmoid(trace_.conv) * bias
                                         : bias.contiguous());
  } else {
    map.bias = at::zeros_like(trace_.conv);
  }

  const bool whole_block =
      factors.gate && factors.activation && form.include_skip &&
      (factors.bias || !factors.conv || !trace_.conv_bias.defined());
  if (whole_block) {
    map.output = trace_.output;
  } else {
    at::Tensor u = trace_.conv;
    if (factors.conv && !factors.bias && trace_.conv_bias.defined()) {
      u = u - trace_.conv_bias;
    }
    const bool activated = factors.activation || !factors.conv;
    map.output = frozen(activated ? at::sigmoid(trace_.conv) * u : u);
  }
  return map;
}

absl::Status S6Attention::Visit(const MatrixForm& form, RowRange rows,
                                AttentionSink& sink,
                                const CancelToken& cancel) const {
  const Factors factors = FactorsOf(form.form);
  FrozenSsm ssm = trace_.ssm;
  if (!form.include_skip) ssm.skip = at::Tensor();
  FrozenFactors around;
  if (factors.activation) around.source_scale = at::sigmoid(trace_.conv);
  if (factors.conv) around.conv_weight = trace_.conv_weight;
  if (factors.gate) around.row_scale = trace_.gate;

  const int64_t length = num_positions();
  const SlabShape shape =
      ChooseSlab(num_channels(), rows.size(), length,
                 trace_.x.element_size(), trace_.x.is_cpu());
  at::Tensor buffer =
      at::empty({shape.channels * shape.rows * length}, trace_.x.options());
  for (int64_t channel = 0; channel < num_channels();
       channel += shape.channels) {
    const int64_t channels = std::min(shape.channels, num_channels() - channel);
    for (int64_t row = rows.begin; row < rows.end; row += shape.rows) {
      LIMPID_RETURN_IF_ERROR(cancel.Check());
      const int64_t count = std::min(shape.rows, rows.end - row);
      AttentionSlab slab;
      slab.channel_begin = channel;
      slab.row_begin = row;
      slab.values = buffer.narrow(0, 0, channels * count * length)
                        .view({channels, count, length});
      SsmAttention(ssm, around, channel, row, slab.values);
      LIMPID_RETURN_IF_ERROR(sink.OnSlab(slab));
    }
  }
  return absl::OkStatus();
}

}  // namespace limpid
