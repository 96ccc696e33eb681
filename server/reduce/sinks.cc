// SPDX-License-Identifier: Apache-2.0
#include "server/reduce/sinks.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/models/kernel_ops.h"

namespace limpid {
namespace {

kernels::ChannelFold FoldOf(ChannelReduction reduction) {
  switch (reduction) {
    case ChannelReduction::kMeanAbs:
      return kernels::ChannelFold::kSumAbs;
    case ChannelReduction::kMeanPos:
      return kernels::ChannelFold::kSumPositive;
    case ChannelReduction::kMax:
      return kernels::ChannelFold::kMax;
    case ChannelReduction::kMin:
      return kernels::ChannelFold::kMin;
    case ChannelReduction::kL2:
      return kernels::ChannelFold::kSumSquares;
    case ChannelReduction::kWnorm:
      return kernels::ChannelFold::kWeightedSumAbs;
    default:
      return kernels::ChannelFold::kSum;
  }
}

FoldFinish FinishOf(ChannelReduction reduction) {
  switch (reduction) {
    case ChannelReduction::kMax:
    case ChannelReduction::kMin:
    case ChannelReduction::kWnorm:
      return FoldFinish::kNone;
    case ChannelReduction::kPosMean:
      return FoldFinish::kPositiveMean;
    case ChannelReduction::kL2:
      return FoldFinish::kRootMean;
    default:
      return FoldFinish::kMean;
  }
}

}  // namespace

ChannelReducer::ChannelReducer(ChannelReduction reduction,
                               const BlockAttention& attention, RowRange rows)
    : reduction_(reduction),
      rows_(rows),
      num_positions_(attention.num_positions()),
      num_channels_(attention.num_channels()),
      projection_(attention.Projection().weight) {}

absl::Status ChannelReducer::OnSlab(const AttentionSlab& slab) {
  const AttentionFold target = Target();
  at::Tensor part = target.matrix.narrow(0, slab.row_begin - rows_.begin,
                                         slab.values.size(1));
  FoldChannels(
      target.fold, slab.values,
      target.weight.defined()
          ? target.weight.narrow(0, slab.channel_begin, slab.values.size(0))
          : at::Tensor(),
      part);
  return absl::OkStatus();
}

MatrixFold ChannelReducer::WholeOf(const MatrixForm& form) const {
  return {form, FoldOf(reduction_), FinishOf(reduction_)};
}

AttentionFold ChannelReducer::Target() {
  AttentionFold fold;
  fold.fold = FoldOf(reduction_);
  if (!matrix_.defined()) {
    matrix_ = at::full({rows_.size(), num_positions_}, EmptyFold(fold.fold),
                       projection_.options());
    if (reduction_ == ChannelReduction::kWnorm) {
      weights_ = ChannelWeights(projection_);
    }
  }
  fold.weight = weights_;
  fold.matrix = matrix_;
  return fold;
}

at::Tensor ChannelReducer::Finish() {
  if (whole_.defined()) return whole_;
  FinishFold(FinishOf(reduction_), num_channels_, matrix_);
  return matrix_;
}

ChannelCollector::ChannelCollector(const std::vector<int64_t>& channels,
                                   const BlockAttention& attention,
                                   RowRange rows)
    : rows_(rows), place_(attention.num_channels(), -1) {
  for (size_t i = 0; i < channels.size(); ++i) {
    place_[channels[i]] = static_cast<int64_t>(i);
  }
  if (channels.empty()) {
    for (size_t i = 0; i < place_.size(); ++i) place_[i] = i;
  }
  const int64_t kept =
      channels.empty() ? attention.num_channels() : channels.size();
  kept_ = at::empty({kept, rows.size(), attention.num_positions()},
                    attention.Stream().options().device(at::kCPU));
}

absl::Status ChannelCollector::OnSlab(const AttentionSlab& slab) {
  // More rows may be visited than are kept: a method may need them.
  const int64_t begin = std::max(slab.row_begin, rows_.begin);
  const int64_t end = std::min(slab.row_begin + slab.values.size(1), rows_.end);
  if (begin >= end) return absl::OkStatus();
  for (int64_t i = 0; i < slab.values.size(0); ++i) {
    const int64_t place = place_[slab.channel_begin + i];
    if (place < 0) continue;
    kept_[place]
        .narrow(0, begin - rows_.begin, end - begin)
        .copy_(slab.values[i].narrow(0, begin - slab.row_begin, end - begin));
  }
  return absl::OkStatus();
}

const BlockMap& ReconstructionMeter::map() {
  if (!map_) map_ = attention_.Map(form_);
  return *map_;
}

absl::Status ReconstructionMeter::OnSlab(const AttentionSlab& slab) {
  const int64_t channels = slab.values.size(0), rows = slab.values.size(1);
  if (!product_.defined()) {
    product_ = at::empty({rows_.size(), attention_.num_channels()},
                         slab.values.options());
  }
  // [channels, rows] = alpha [channels, rows, L] value [channels, L, 1]
  const at::Tensor value =
      map().value.narrow(1, slab.channel_begin, channels).t().unsqueeze(2);
  product_.narrow(0, slab.row_begin - rows_.begin, rows)
      .narrow(1, slab.channel_begin, channels)
      .copy_(at::bmm(slab.values, value).squeeze(2).t());
  return absl::OkStatus();
}

at::Tensor ReconstructionMeter::Finish() {
  if (!errors_.defined()) {
    const auto visited = [&](const at::Tensor& tensor) {
      return tensor.narrow(0, rows_.begin, rows_.size());
    };
    errors_ = RowErrors(product_, visited(map().bias), visited(map().output));
  }
  return errors_.dim() == 0 ? errors_ : errors_.max();
}

absl::Status SinkList::OnSlab(const AttentionSlab& slab) {
  for (AttentionSink* sink : sinks_) {
    LIMPID_RETURN_IF_ERROR(sink->OnSlab(slab));
  }
  return absl::OkStatus();
}

namespace {

// Whether the block folded all rows by itself.
bool FoldedByBlock(const BlockAttention& attention, const MatrixForm& form,
                   const std::vector<ChannelReducer*>& reducers,
                   ReconstructionMeter* meter, const CancelToken& cancel) {
  bool measures = meter != nullptr;
  for (ChannelReducer* reducer : reducers) {
    const std::optional<FoldedMatrix> folded =
        attention.Fold(reducer->WholeOf(form), measures, cancel);
    // All of them or none: it depends on the block and the form alone.
    if (!folded) return false;
    reducer->OnWhole(folded->matrix);
    if (measures) meter->OnErrors(folded->error);
    measures = false;
  }
  return !reducers.empty();
}

// Whether the block folded a few rows by itself.
bool RowsFoldedByBlock(const BlockAttention& attention, const MatrixForm& form,
                       RowRange rows,
                       const std::vector<ChannelReducer*>& reducers,
                       ReconstructionMeter* meter) {
  at::Tensor errors;
  for (ChannelReducer* reducer : reducers) {
    const bool measures = meter != nullptr && !errors.defined();
    if (!attention.FoldRows(form, rows, reducer->Target(),
                            measures ? &errors : nullptr)) {
      return false;
    }
    if (measures) meter->OnErrors(errors);
  }
  return !reducers.empty();
}

}  // namespace

absl::Status ReduceChannels(const BlockAttention& attention,
                            const MatrixForm& form, RowRange rows,
                            const std::vector<ChannelReducer*>& reducers,
                            ReconstructionMeter* meter,
                            const CancelToken& cancel) {
  LIMPID_RETURN_IF_ERROR(cancel.Check());
  const bool all = rows.begin == 0 && rows.end == attention.num_positions();
  if (all && FoldedByBlock(attention, form, reducers, meter, cancel)) {
    // Cancelled, it may not have finished.
    return cancel.Check();
  }
  if (RowsFoldedByBlock(attention, form, rows, reducers, meter)) {
    return absl::OkStatus();
  }
  SinkList sinks;
  if (meter != nullptr) sinks.Add(meter);
  for (ChannelReducer* reducer : reducers) sinks.Add(reducer);
  return attention.Visit(form, rows, sinks, cancel);
}

}  // namespace limpid
