// SPDX-License-Identifier: Apache-2.0
#include "server/explain/runner.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/attribution/faithfulness.h"
#include "server/reduce/sinks.h"

namespace limpid {

Runner::Runner(const ExplanationPlan& plan, const ModelCopy& copy,
               ResultSink& sink, const CancelToken& cancel)
    : plan_(plan),
      cancel_(cancel),
      request_(plan.request()),
      network_(plan.NetworkOf(copy)),
      reply_(plan, copy.device, sink) {}

bool Runner::IsReturned(int64_t layer) const {
  return std::binary_search(plan_.layers().begin(), plan_.layers().end(),
                            layer);
}

void Runner::Enter(const at::Tensor& embeddings, const at::Tensor& pixels) {
  context_.emplace(AttributionContext{
      network_, embeddings, pixels, plan_.positions(), plan_.form(),
      plan_.method_reduction(), request_.options, plan_.method_memory_bytes()});
  attribution_ = plan_.entry().make(*context_);
}

absl::Status Runner::OnLayer(int64_t layer, const BlockAttention& attention) {
  const int64_t num_layers = network_.info().num_layers;
  const bool returned = IsReturned(layer);
  const RowRange rows = plan_.RowsOf(returned);
  if (rows.size() == 0) {
    return reply_.Progress(layer + 1, num_layers, "layer");
  }
  const bool looks = plan_.need() != AttentionNeed::kNothing;
  const bool wants_entries =
      returned && request_.attention.kind != AttentionKind::kNone;
  const ChannelReduction reduction = plan_.returned_reduction();
  const bool per_channel = wants_entries && reduction == ChannelReduction::kAll;

  ReconstructionMeter meter(attention, plan_.form(), rows);
  std::unique_ptr<MatrixReducer> of_method;
  std::optional<ChannelReducer> looked_at, to_return;
  std::vector<ChannelReducer*> reducers;
  if (looks) {
    of_method = attribution_->MakeReducer(attention, rows);
    if (of_method == nullptr) {
      looked_at.emplace(plan_.method_reduction(), attention, rows);
      reducers.push_back(&*looked_at);
    }
  }
  // Mostly what is returned is what the method looks at.
  const bool shared = looked_at && reduction == plan_.method_reduction();
  if (wants_entries && !per_channel && !shared) {
    to_return.emplace(reduction, attention, rows);
    reducers.push_back(&*to_return);
  }
  const RowRange asked = request_.attention.kind == AttentionKind::kMatrix
                             ? RowRange{0, plan_.length()}
                             : RowsFor(AttentionNeed::kRow, plan_.positions(),
                                       network_.info().causal, plan_.length());
  std::optional<ChannelCollector> collector;
  if (per_channel) {
    collector.emplace(plan_.ReturnedChannels(layer), attention, asked);
  }
  if (of_method == nullptr && !collector) {
    LIMPID_RETURN_IF_ERROR(ReduceChannels(attention, plan_.form(), rows,
                                          reducers, &meter, cancel_));
  } else {
    SinkList sinks;
    sinks.Add(&meter);
    for (ChannelReducer* reducer : reducers) sinks.Add(reducer);
    if (of_method != nullptr) sinks.Add(of_method.get());
    if (collector) sinks.Add(&*collector);
    const int64_t step =
        of_method != nullptr ? of_method->rows_at_once() : rows.size();
    for (int64_t row = rows.begin; row < rows.end; row += step) {
      LIMPID_RETURN_IF_ERROR(attention.Visit(
          plan_.form(), {row, std::min(row + step, rows.end)}, sinks, cancel_));
    }
  }

  at::Tensor matrix, reduced;
  if (looks) {
    matrix = looked_at ? looked_at->Finish() : of_method->Finish();
    // Of a network that is split, the method works where it began.
    matrix = matrix.to(context_->embeddings.device());
    const RowRange needed = plan_.RowsOf(/*returned=*/false);
    LIMPID_RETURN_IF_ERROR(attribution_->OnLayer(
        layer, matrix.narrow(0, needed.begin - rows.begin, needed.size()),
        needed));
  }
  if (shared) reduced = matrix;
  if (to_return) reduced = to_return->Finish();
  if (returned) {
    at::Tensor entries;
    if (per_channel) {
      entries = collector->Finish();
    } else if (wants_entries) {
      entries = reduced.narrow(0, asked.begin - rows.begin, asked.size());
    }
    LIMPID_RETURN_IF_ERROR(reply_.Layer(layer, meter, asked, entries));
  }
  return reply_.Progress(layer + 1, num_layers, "layer");
}

absl::Status Runner::Finish(const at::Tensor& scores) {
  const at::Tensor logits = network_.Logits(scores);
  const std::vector<int64_t> readouts = plan_.readouts();
  for (size_t i = 0; i < readouts.size(); ++i) {
    LIMPID_ASSIGN_OR_RETURN(const ResolvedTarget target,
                            reply_.Logits(logits[static_cast<int64_t>(i)]));
    points_.push_back({plan_.points()[i].position, readouts[i], target});
  }
  LIMPID_ASSIGN_OR_RETURN(const std::vector<AttributionResult> results,
                          attribution_->Finish(
                              points_,
                              [&](int64_t done, int64_t total) {
                                return reply_.Progress(done, total, "step");
                              },
                              cancel_));
  for (size_t i = 0; i < results.size(); ++i) {
    LIMPID_ASSIGN_OR_RETURN(const at::Tensor values,
                            reply_.Result(i, results[i]));
    if (request_.faithfulness) {
      LIMPID_RETURN_IF_ERROR(MeasurePoint(i, values));
    }
  }
  return reply_.Finish();
}

absl::Status Runner::MeasurePoint(size_t index, const at::Tensor& values) {
  LIMPID_ASSIGN_OR_RETURN(
      Faithfulness faithfulness,
      MeasureFaithfulness(
          *context_, points_[index], values.to(at::kCPU),
          plan_.Removable(points_[index].position), *request_.faithfulness,
          [&](int64_t done, int64_t total) {
            return reply_.Progress(done, total, "variant");
          },
          cancel_));
  reply_.SetFaithfulness(index, std::move(faithfulness));
  return absl::OkStatus();
}

}  // namespace limpid
