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
  return direction.reversed ? tensor.flip(-2) : tensor;
}

// What the recurrence of a direction maps when nothing is left out.
at::Tensor Activated(const DirectionTrace& direction, const at::Tensor& x) {
  return Product(direction.ratio,
                 direction.conv.defined() ? direction.conv : x);
}

}  // namespace

const BlockTrace& FactoredAttention::trace() const {
  if (!trace_) trace_ = SequencesOf(batch_->all(), Packing(), sequence_);
  return *trace_;
}

const BlockTrace& FactoredAttention::whole() const {
  return trace_ ? *trace_ : batch_->all();
}

at::Tensor FactoredAttention::ValueOf(AttentionForm form) const {
  const Factors factors = FactorsOf(form);
  const BlockTrace& trace = this->trace();
  const DirectionTrace& front = trace.directions.front();
  const bool centred = factors.norm || !trace.uncentred.defined();
  if (form == AttentionForm::kState) {
    return trace.uncentred.defined() ? trace.uncentred
                                     : Activated(front, trace.x);
  }
  if (!factors.conv && front.conv.defined()) return front.conv;
  return centred ? trace.x : trace.uncentred;
}

BlockMap FactoredAttention::Map(const MatrixForm& form) const {
  BlockMap map = MapScaled(form, RowScale(form.form), /*with_conv_bias=*/true);
  if (!map.bias.defined()) {
    map.bias = at::zeros_like(map.output, at::MemoryFormat::Contiguous);
  }
  return map;
}

BlockMap FactoredAttention::MapScaled(const MatrixForm& form,
                                      const at::Tensor& row_scale,
                                      bool with_conv_bias) const {
  const Factors factors = FactorsOf(form.form);
  const BlockTrace& trace = this->trace();
  BlockMap map;
  map.value = ValueOf(form.form);

  // The block itself, whose output is at hand.
  const bool whole = form.include_skip && (form.form == AttentionForm::kFull ||
                                           form.form == AttentionForm::kNoConv);
  // What the recurrences make of the value, and of the biases of their
  // convolutions once the factors are frozen.
  at::Tensor mapped, of_bias;
  for (const DirectionTrace& direction : trace.directions) {
    const bool has_conv = factors.conv && direction.conv.defined();
    const at::Tensor ratio =
        factors.activation ? direction.ratio : at::Tensor();
    at::Tensor u = has_conv ? direction.conv : Turned(direction, map.value);
    if (has_conv && direction.conv_bias.defined()) {
      const at::Tensor bias = direction.conv_bias.expand_as(u);
      if (factors.conv_bias && with_conv_bias) {
        of_bias = direction.recurrence->AddApplied(
            of_bias, Product(ratio, bias).contiguous(), form.include_skip,
            direction.reversed);
      } else if (!factors.conv_bias) {
        u = u - bias;
      }
    }
    if (whole) continue;
    mapped = direction.recurrence->AddApplied(
        mapped, Product(ratio, u), form.include_skip, direction.reversed);
  }

  const at::Tensor gate = factors.gate ? trace.gate : at::Tensor();
  at::Tensor added;
  if (factors.added) {
    added = trace.direct;
    if (factors.norm && trace.norm_bias.defined()) {
      added = Sum(trace.norm_bias.expand_as(trace.x), added);
    }
    if (trace.direct.defined()) map.direct = Product(gate, trace.direct);
  }
  if (added.defined()) added = Product(gate, added);
  const auto finish = [&](const at::Tensor& y) {
    return Sum(y.defined() ? Product(row_scale, y) : y, added);
  };
  map.bias = finish(of_bias);
  map.output = whole ? trace.output : finish(mapped);
  return map;
}

at::Tensor FactoredAttention::RowScale(AttentionForm form) const {
  const BlockTrace& trace = this->trace();
  const Factors factors = FactorsOf(form);
  const at::Tensor scale = Product(factors.norm ? trace.norm : at::Tensor(),
                                   factors.gate ? trace.gate : at::Tensor());
  if (!factors.scale || trace.scale == 1) return scale;
  return scale.defined() ? scale * trace.scale
                         : at::full_like(trace.x, trace.scale,
                                         at::MemoryFormat::Contiguous);
}

at::Tensor FactoredAttention::Apply(const MatrixForm& form,
                                    const at::Tensor& u) const {
  const BlockTrace& trace = this->trace();
  const Factors factors = FactorsOf(form.form);
  at::Tensor mapped;
  for (const DirectionTrace& direction : trace.directions) {
    at::Tensor one = Turned(direction, u);
    if (factors.conv && direction.conv_weight.defined()) {
      one = Convolve(one.unsqueeze(0), direction.conv_weight, at::Tensor(),
                     Packing())
                .squeeze(0);
    }
    if (factors.activation) one = Product(direction.ratio, one);
    mapped = direction.recurrence->AddApplied(
        mapped, one.contiguous(), form.include_skip, direction.reversed);
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
                                        AttentionForm form,
                                        const at::Tensor& row_scale) const {
  const Factors factors = FactorsOf(form);
  FrozenFactors around;
  if (factors.activation) around.source_scale = direction.ratio;
  if (factors.conv) {
    around.conv_weight = direction.conv_weight;
    if (factors.conv_bias) around.conv_bias = direction.conv_bias;
  }
  if (row_scale.defined()) around.row_scale = row_scale.contiguous();
  return around;
}

std::optional<FoldedMatrix> FactoredAttention::Fold(
    const MatrixFold& fold, bool measures, const CancelToken& cancel) const {
  if (batch_ != nullptr) {
    return batch_->Fold(fold, measures, sequence_, cancel);
  }
  const BlockTrace& trace = this->trace();
  const AttentionForm form = fold.form.form;
  const DirectionTrace& ahead = trace.directions.front();
  std::vector<int64_t> sizes = trace.x.sizes().vec();
  sizes.back() = num_positions();
  AttentionFold own;
  own.fold = fold.fold;
  if (fold.fold == kernels::ChannelFold::kWeightedSumAbs) {
    own.weight = ChannelWeights(trace.projection.weight);
  }
  const bool both_ways = trace.directions.size() > 1;
  own.matrix = both_ways
                   ? at::empty(sizes, trace.x.options())
                   : at::full(sizes, EmptyFold(fold.fold), trace.x.options());
  if (measures) {
    own.value = ValueOf(form);
    own.product = at::empty(trace.x.sizes(), trace.x.options());
  }
  own.cancel = &cancel;
  const at::Tensor row_scale = RowScale(form);
  const FrozenFactors around = Around(ahead, form, row_scale);
  const DirectionTrace& back = trace.directions.back();
  const bool taken =
      both_ways ? ahead.recurrence->FoldWith(*back.recurrence, around,
                                             Around(back, form, row_scale),
                                             fold.form.include_skip, own)
                : ahead.recurrence->Fold(around, fold.form.include_skip, own);
  if (!taken) return std::nullopt;
  FinishFold(fold.finish, num_channels(), own.matrix);
  FoldedMatrix folded{own.matrix, at::Tensor()};
  if (measures) {
    const BlockMap map =
        MapScaled(fold.form, row_scale, !ahead.recurrence->folds_conv_bias());
    folded.error = RowErrors(own.product, map.bias, map.output).amax(-1);
  }
  return folded;
}

bool FactoredAttention::FoldRows(const MatrixForm& form, RowRange rows,
                                 const AttentionFold& fold,
                                 at::Tensor* errors) const {
  const BlockTrace& trace = this->trace();
  // Blocks of one recurrence between a convolution and a gate, whose output is
  // at hand.
  if (form.form != AttentionForm::kFull || !form.include_skip ||
      trace.directions.size() > 1 || trace.norm.defined() ||
      trace.direct.defined() || trace.uncentred.defined() || trace.scale != 1 ||
      rows.size() > kernels::kMaxFoldedRows) {
    return false;
  }
  const DirectionTrace& direction = trace.directions.front();
  AttentionFold own = fold;
  if (errors != nullptr) {
    own.value = trace.x;
    own.product =
        at::empty({rows.size(), num_channels()}, fold.matrix.options());
  }
  if (!direction.recurrence->FoldRows(
          Around(direction, form.form, RowScale(form.form)), rows.begin, own)) {
    return false;
  }
  if (errors != nullptr) {
    *errors = RowErrors(own.product, at::Tensor(),
                        trace.output.narrow(0, rows.begin, rows.size()));
  }
  return true;
}

absl::Status FactoredAttention::Visit(const MatrixForm& form, RowRange rows,
                                      AttentionSink& sink,
                                      const CancelToken& cancel) const {
  const BlockTrace& trace = this->trace();
  const at::Tensor row_scale = RowScale(form.form);
  std::vector<FrozenFactors> around;
  for (const DirectionTrace& direction : trace.directions) {
    around.push_back(
        Around(direction, form.form,
               row_scale.defined() ? Turned(direction, row_scale) : row_scale));
  }

  const int64_t length = num_positions();
  const SlabShape shape = ChooseSlab(num_channels(), rows.size(), length,
                                     trace.x.element_size(), trace.x.is_cpu());
  const auto make_buffer = [&] {
    return at::empty({shape.channels * shape.rows * length}, trace.x.options());
  };
  at::Tensor buffer = make_buffer();
  at::Tensor other = trace.directions.size() > 1 ? make_buffer() : buffer;
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
      for (size_t i = 0; i < trace.directions.size(); ++i) {
        const DirectionTrace& direction = trace.directions[i];
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

BlockTrace SequencesOf(const BlockTrace& all, const Packing& packing,
                       int64_t first, int64_t count) {
  const auto of = [&](const at::Tensor& tensor) {
    const at::Tensor part = packing.Sequences(tensor, first, count);
    return part.defined() && count == 1 ? part.squeeze(0) : part;
  };
  BlockTrace trace;
  for (const DirectionTrace& direction : all.directions) {
    DirectionTrace& own = trace.directions.emplace_back();
    own.recurrence = direction.recurrence->Sequences(packing, first, count);
    own.conv_weight = direction.conv_weight;
    own.conv_bias = direction.conv_bias;
    own.conv = of(direction.conv);
    own.ratio = of(direction.ratio);
    own.reversed = direction.reversed;
  }
  trace.x = of(all.x);
  trace.uncentred = of(all.uncentred);
  trace.scale = all.scale;
  trace.norm = of(all.norm);
  trace.norm_bias = all.norm_bias;
  trace.direct = of(all.direct);
  trace.gate = of(all.gate);
  trace.output = of(all.output);
  trace.projection = all.projection;
  trace.stream = of(all.stream);
  return trace;
}

std::optional<FoldedMatrix> BlockBatch::Fold(const MatrixFold& fold,
                                             bool measures, int64_t sequence,
                                             const CancelToken& cancel) const {
  const auto part = [&](const FoldedMatrix& folded) {
    return FoldedMatrix{folded.matrix[sequence],
                        measures ? folded.error[sequence] : at::Tensor()};
  };
  for (const Known& known : known_) {
    if (known.fold == fold && (known.folded.error.defined() || !measures)) {
      return part(known.folded);
    }
  }
  const std::optional<FoldedMatrix> folded = all_.Fold(fold, measures, cancel);
  if (!folded) return std::nullopt;
  // Of one that was cancelled others get nothing.
  if (cancel.Check().ok()) known_.push_back({fold, *folded});
  return part(*folded);
}

namespace {

void VisitSequences(Pass& pass, const BlockTrace& trace) {
  const Packing& packing = pass.packing;
  const int64_t count = packing.CountOf(trace.x);
  // A GPU takes many small folds at once; a CPU is busy with one.
  const bool together = pass.alike() && trace.x.is_cuda() &&
                        trace.directions.front().recurrence->FoldsBatches();
  for (int64_t first = 0; first < count && pass.visits();) {
    int64_t end = first + 1;
    while (together && end < count &&
           packing.LengthOf(trace.x, end) == packing.LengthOf(trace.x, first)) {
      ++end;
    }
    if (end == first + 1) {
      pass.Visit(first, FactoredAttention(SequencesOf(trace, packing, first)));
    } else {
      const BlockBatch batch(SequencesOf(trace, packing, first, end - first));
      for (int64_t i = first; i < end; ++i) {
        pass.Visit(i, FactoredAttention(batch, i - first));
      }
    }
    first = end;
  }
}

}  // namespace

void VisitBlocks(Pass& pass, BlockTrace trace) {
  // Of fewer numbers the next layer would be waiting for launches anyhow.
  constexpr int64_t kLarge = int64_t{1} << 19;
  const auto kept = std::make_shared<const BlockTrace>(std::move(trace));
  const auto visit = [&] { VisitSequences(pass, *kept); };
  if (pass.fused() && kept->x.numel() >= kLarge) {
    pass.aside().Run(kept->x, kept, visit);
  } else {
    visit();
  }
}

}  // namespace limpid
