// SPDX-License-Identifier: Apache-2.0
#include "server/models/factored_attention.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "server/kernels/rows.h"
#include "server/models/layers.h"
#include "server/models/slabs.h"

namespace limpid {
namespace {

// Which factors a form holds.
struct Factors {
  bool conv = true;
  bool activation = true;
  bool norm = true;
  bool gate = true;
  bool scale = true;
  bool conv_bias = true;
  // What goes past the recurrence, and the normaliser's bias.
  bool added = true;
};

Factors FactorsOf(AttentionForm form) {
  Factors factors;
  switch (form) {
    case AttentionForm::kState:
      factors = {false, false, false, false, false, false, false};
      break;
    case AttentionForm::kNoConv:
      factors.conv = false;
      break;
    case AttentionForm::kNoGate:
      factors.gate = false;
      break;
    case AttentionForm::kNoActivation:
      factors.activation = false;
      break;
    case AttentionForm::kNoNorm:
      factors.norm = false;
      break;
    case AttentionForm::kUpstream:
      factors.scale = false;
      factors.conv_bias = false;
      break;
    case AttentionForm::kFull:
      break;
  }
  return factors;
}

at::Tensor Product(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined()) return b;
  return b.defined() ? a * b : a;
}

at::Tensor Sum(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined()) return b;
  return b.defined() ? a + b : a;
}

// From a direction's own time to the sequence's, and back.
at::Tensor Turned(const DirectionTrace& direction, const at::Tensor& tensor) {
  return direction.reversed ? tensor.flip(0) : tensor;
}

// What the recurrence of a direction maps when nothing is left out.
at::Tensor Activated(const DirectionTrace& direction, const at::Tensor& x) {
  return Product(direction.ratio,
                 direction.conv.defined() ? direction.conv : x);
}

// Leaves the first `length` positions. Those of a reversed direction come after
// the padding in its own time, so that they are not its own alone.
void CutTrace(int64_t length, BlockTrace& trace) {
  const auto cut = [&](std::initializer_list<at::Tensor*> tensors) {
    for (at::Tensor* tensor : tensors) {
      if (tensor->defined()) *tensor = tensor->narrow(0, 0, length);
    }
  };
  for (DirectionTrace& direction : trace.directions) {
    TORCH_CHECK(!direction.reversed, "padded input of a bidirectional block");
    direction.recurrence = direction.recurrence->Leading(length);
    cut({&direction.conv, &direction.ratio});
  }
  cut({&trace.x, &trace.uncentred, &trace.norm, &trace.direct, &trace.gate,
       &trace.output, &trace.stream});
}

}  // namespace

BlockMap FactoredAttention::Map(const MatrixForm& form) const {
  const Factors factors = FactorsOf(form.form);
  const bool centred = factors.norm || !trace_.uncentred.defined();
  BlockMap map;
  if (form.form == AttentionForm::kState) {
    map.value = trace_.uncentred.defined()
                    ? trace_.uncentred
                    : Activated(trace_.directions.front(), trace_.x);
  } else if (!factors.conv && trace_.directions.front().conv.defined()) {
    map.value = trace_.directions.front().conv;
  } else {
    map.value = centred ? trace_.x : trace_.uncentred;
  }

  // The block itself, whose output is at hand.
  const bool whole = form.include_skip && (form.form == AttentionForm::kFull ||
                                           form.form == AttentionForm::kNoConv);
  // What the recurrences make of the value, and of the biases of their
  // convolutions once the factors are frozen.
  at::Tensor mapped, of_bias;
  for (const DirectionTrace& direction : trace_.directions) {
    const bool has_conv = factors.conv && direction.conv.defined();
    const at::Tensor ratio =
        factors.activation ? direction.ratio : at::Tensor();
    at::Tensor u = has_conv ? direction.conv : Turned(direction, map.value);
    if (has_conv && direction.conv_bias.defined()) {
      const at::Tensor bias = direction.conv_bias.expand_as(u);
      if (factors.conv_bias) {
        const at::Tensor one = direction.recurrence->Apply(
            Product(ratio, bias).contiguous(), form.include_skip);
        of_bias = Sum(of_bias, Turned(direction, one));
      } else {
        u = u - bias;
      }
    }
    if (whole) continue;
    const at::Tensor one =
        direction.recurrence->Apply(Product(ratio, u), form.include_skip);
    mapped = Sum(mapped, Turned(direction, one));
  }

  const at::Tensor scale = RowScale(form.form);
  const at::Tensor gate = factors.gate ? trace_.gate : at::Tensor();
  at::Tensor added;
  if (factors.added) {
    added = trace_.direct;
    if (factors.norm && trace_.norm_bias.defined()) {
      added = Sum(trace_.norm_bias.expand_as(trace_.x), added);
    }
    if (trace_.direct.defined()) map.direct = Product(gate, trace_.direct);
  }
  if (added.defined()) added = Product(gate, added);
  const auto finish = [&](const at::Tensor& y) {
    return Sum(y.defined() ? Product(scale, y) : y, added);
  };
  if (of_bias.defined() || added.defined()) {
    map.bias = finish(of_bias);
  } else {
    map.bias = at::zeros_like(trace_.output, at::MemoryFormat::Contiguous);
  }
  map.output = whole ? trace_.output : finish(mapped);
  return map;
}

at::Tensor FactoredAttention::RowScale(AttentionForm form) const {
  const Factors factors = FactorsOf(form);
  const at::Tensor scale = Product(factors.norm ? trace_.norm : at::Tensor(),
                                   factors.gate ? trace_.gate : at::Tensor());
  if (!factors.scale || trace_.scale == 1) return scale;
  return scale.defined() ? scale * trace_.scale
                         : at::full_like(trace_.x, trace_.scale,
                                         at::MemoryFormat::Contiguous);
}

at::Tensor FactoredAttention::Apply(const MatrixForm& form,
                                    const at::Tensor& u) const {
  const Factors factors = FactorsOf(form.form);
  at::Tensor mapped;
  for (const DirectionTrace& direction : trace_.directions) {
    at::Tensor one = Turned(direction, u);
    if (factors.conv && direction.conv_weight.defined()) {
      one = Convolve(one.unsqueeze(0), direction.conv_weight, at::Tensor())
                .squeeze(0);
    }
    if (factors.activation) one = Product(direction.ratio, one);
    one = direction.recurrence->Apply(one.contiguous(), form.include_skip);
    mapped = Sum(mapped, Turned(direction, one));
  }
  return Product(RowScale(form.form), mapped);
}

at::Tensor FactoredAttention::ApplyTransposed(const MatrixForm& form,
                                              const at::Tensor& u) const {
  // The gradient of a linear map is its transpose.
  const c10::AutoGradMode with_gradients(true);
  const at::Tensor anywhere = at::zeros_like(u).requires_grad_(true);
  return torch::autograd::grad({Apply(form, anywhere)}, {anywhere}, {u})[0];
}

FrozenFactors FactoredAttention::Around(const DirectionTrace& direction,
                                        AttentionForm form) const {
  const Factors factors = FactorsOf(form);
  const at::Tensor row_scale = RowScale(form);
  FrozenFactors around;
  if (factors.activation) around.source_scale = direction.ratio;
  if (factors.conv) around.conv_weight = direction.conv_weight;
  if (row_scale.defined()) {
    around.row_scale = Turned(direction, row_scale).contiguous();
  }
  return around;
}

bool FactoredAttention::Fold(const MatrixForm& form,
                             const AttentionFold& fold) const {
  if (trace_.directions.size() > 1) return FoldBothWays(form, fold);
  const DirectionTrace& direction = trace_.directions.front();
  return direction.recurrence->Fold(Around(direction, form.form),
                                    form.include_skip, fold);
}

bool FactoredAttention::FoldRows(const MatrixForm& form, RowRange rows,
                                 const AttentionFold& fold,
                                 at::Tensor* errors) const {
  // Blocks of one recurrence between a convolution and a gate, whose output is
  // at hand.
  if (form.form != AttentionForm::kFull || !form.include_skip ||
      trace_.directions.size() > 1 || trace_.norm.defined() ||
      trace_.direct.defined() || trace_.uncentred.defined() ||
      trace_.scale != 1 || rows.size() > kernels::kMaxFoldedRows) {
    return false;
  }
  const DirectionTrace& direction = trace_.directions.front();
  AttentionFold own = fold;
  if (errors != nullptr) {
    own.value = trace_.x;
    own.product =
        at::empty({rows.size(), num_channels()}, fold.matrix.options());
  }
  if (!direction.recurrence->FoldRows(Around(direction, form.form),
                                      direction.conv_bias, rows.begin, own)) {
    return false;
  }
  if (errors != nullptr) {
    *errors = RowErrors(own.product, at::Tensor(),
                        trace_.output.narrow(0, rows.begin, rows.size()));
  }
  return true;
}

bool FactoredAttention::FoldBothWays(const MatrixForm& form,
                                     const AttentionFold& fold) const {
  using kernels::ChannelFold;
  const double empty = EmptyFold(fold.fold);
  at::Tensor product, diagonal, matrix;
  for (const DirectionTrace& direction : trace_.directions) {
    const FrozenFactors around = Around(direction, form.form);
    const at::Tensor own_diagonal =
        direction.recurrence->Diagonal(around, form.include_skip);
    if (!own_diagonal.defined()) return false;
    diagonal = Sum(diagonal, Turned(direction, own_diagonal));
    AttentionFold one = fold;
    one.matrix = at::full_like(fold.matrix, empty);
    if (fold.product.defined()) {
      one.value = Turned(direction, fold.value).contiguous();
      one.product = at::empty_like(fold.product);
    }
    if (!direction.recurrence->Fold(around, form.include_skip, one)) {
      return false;
    }
    if (fold.product.defined()) {
      product = Sum(product, Turned(direction, one.product));
    }
    matrix = Sum(matrix, direction.reversed ? one.matrix.flip({0, 1}).triu(1)
                                            : one.matrix.tril(-1));
  }
  at::Tensor folded = at::full({1, num_positions()}, empty, matrix.options());
  FoldChannels(fold.fold, diagonal.t().contiguous().unsqueeze(1), fold.weight,
               folded);
  matrix = matrix + at::diag(folded[0]);
  if (fold.fold == ChannelFold::kMax) {
    fold.matrix.copy_(at::maximum(fold.matrix, matrix));
  } else if (fold.fold == ChannelFold::kMin) {
    fold.matrix.copy_(at::minimum(fold.matrix, matrix));
  } else {
    fold.matrix.add_(matrix);
  }
  if (product.defined()) fold.product.copy_(product);
  return true;
}

absl::Status FactoredAttention::Visit(const MatrixForm& form, RowRange rows,
                                      AttentionSink& sink,
                                      const CancelToken& cancel) const {
  std::vector<FrozenFactors> around;
  for (const DirectionTrace& direction : trace_.directions) {
    around.push_back(Around(direction, form.form));
  }

  const int64_t length = num_positions();
  const SlabShape shape =
      ChooseSlab(num_channels(), rows.size(), length, trace_.x.element_size(),
                 trace_.x.is_cpu());
  const auto make_buffer = [&] {
    return at::empty({shape.channels * shape.rows * length},
                     trace_.x.options());
  };
  at::Tensor buffer = make_buffer();
  at::Tensor other = trace_.directions.size() > 1 ? make_buffer() : buffer;
  // Rows outside, so that a head's rows are made once for all its channels.
  for (int64_t row = rows.begin; row < rows.end; row += shape.rows) {
    const int64_t count = std::min(shape.rows, rows.end - row);
    for (int64_t channel = 0; channel < num_channels();
         channel += shape.channels) {
      LIMPID_RETURN_IF_ERROR(cancel.Check());
      const int64_t channels =
          std::min(shape.channels, num_channels() - channel);
      AttentionSlab slab;
      slab.channel_begin = channel;
      slab.row_begin = row;
      for (size_t i = 0; i < trace_.directions.size(); ++i) {
        const DirectionTrace& direction = trace_.directions[i];
        at::Tensor entries = (i == 0 ? buffer : other)
                                 .narrow(0, 0, channels * count * length)
                                 .view({channels, count, length});
        const int64_t first = direction.reversed ? length - row - count : row;
        direction.recurrence->Entries(around[i], form.include_skip, channel,
                                      first, entries);
        if (direction.reversed) entries = entries.flip({1, 2});
        slab.values = i == 0 ? entries : slab.values.add_(entries);
      }
      LIMPID_RETURN_IF_ERROR(sink.OnSlab(slab));
    }
  }
  return absl::OkStatus();
}

void VisitBlock(Pass& pass, int64_t sequence, BlockTrace trace) {
  const int64_t whole = trace.x.size(0);
  const int64_t length = pass.LengthOf(sequence, whole);
  if (length < whole) CutTrace(length, trace);
  pass.Visit(sequence, FactoredAttention(std::move(trace)));
}

}  // namespace limpid
