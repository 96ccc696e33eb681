// SPDX-License-Identifier: Apache-2.0
#include "server/explain/runner.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/attribution/faithfulness.h"
#include "server/explain/outbox.h"
#include "server/explain/thinning.h"
#include "server/reduce/sinks.h"

namespace limpid {
namespace {

// Work of one request, from its plan to its summary.
class Runner {
 public:
  Runner(const ExplanationPlan& plan, ResultSink& sink,
         const CancelToken& cancel)
      : plan_(plan),
        sink_(sink),
        outbox_(sink),
        cancel_(cancel),
        request_(plan.request()),
        network_(plan.servable().network()) {}

  absl::Status Run();

 private:
  absl::Status SendHeader();
  absl::Status OnLayer(int64_t layer, const BlockAttention& attention);
  absl::Status SendLayer(int64_t layer, ReconstructionMeter& meter,
                         RowRange rows, const at::Tensor& entries);
  // Target and predictions from the logits of a point, [V].
  absl::Status ReadLogits(size_t index, const at::Tensor& logits);
  absl::Status SendResult(size_t index, const AttributionResult& result);
  // Measures the values that were sent for a point.
  absl::Status MeasurePoint(size_t index, const at::Tensor& values);
  // What the names of a point's tensors begin with: nothing for the first.
  static std::string PrefixOf(size_t index) {
    return index == 0 ? "" : absl::StrCat("points.", index, ".");
  }
  absl::Status Send(std::string name, const at::Tensor& tensor,
                    bool lower_triangular = false) {
    return outbox_.Post(std::move(name), tensor, lower_triangular);
  }
  // The reconstruction errors of all layers, now that they are waited for.
  void ReadErrors();
  bool IsReturned(int64_t layer) const {
    return std::binary_search(plan_.layers().begin(), plan_.layers().end(),
                              layer);
  }
  // Zeros at special tokens, if the request wants that.
  at::Tensor WithoutSpecial(const at::Tensor& values) const;
  // Sums of the values [L], or [rows, columns] of patches, over the units.
  at::Tensor SumOverUnits(const at::Tensor& map) const;
  // Ids of a text, [L].
  at::Tensor TokenIds() const;
  // Of a text's positions [L], the same; of a picture's, those of patches on
  // their grid, without the class token.
  at::Tensor OnGrid(const at::Tensor& values) const;
  // The channels that were asked for, along the last dimension.
  at::Tensor PickChannels(const at::Tensor& tensor) const;

  const ExplanationPlan& plan_;
  ResultSink& sink_;
  Outbox outbox_;
  const CancelToken& cancel_;
  const ExplainRequest& request_;
  const Network& network_;
  std::optional<AttributionContext> context_;
  std::unique_ptr<Attribution> attribution_;
  std::vector<ExplainedPoint> points_;
  ResultSummary summary_;
  std::vector<at::Tensor> errors_;  // of summary_.layers, one number each
};

absl::Status Runner::Run() {
  const absl::Time start = absl::Now();
  LIMPID_RETURN_IF_ERROR(SendHeader());

  NetworkInput input;
  if (plan_.pixels().empty()) {
    input.token_ids = TokenIds().unsqueeze(0);
  } else {
    const ModelInfo& info = network_.info();
    input.pixels = at::empty({1, 3, info.image_height, info.image_width});
    std::copy(plan_.pixels().begin(), plan_.pixels().end(),
              input.pixels.mutable_data_ptr<float>());
  }
  const at::Tensor embeddings = network_.Embed(input);
  context_.emplace(AttributionContext{
      network_, embeddings, input.pixels, plan_.positions(), plan_.form(),
      plan_.method_reduction(), request_.options, plan_.method_memory_bytes()});
  attribution_ = plan_.entry().make(*context_);
  const std::vector<int64_t> readouts = plan_.readouts();
  LIMPID_ASSIGN_OR_RETURN(
      const at::Tensor scores,
      network_.Forward(
          embeddings, readouts,
          [&](int64_t layer, int64_t, const BlockAttention& attention) {
            return OnLayer(layer, attention);
          },
          cancel_));
  const at::Tensor logits = network_.Logits(scores)[0];
  for (size_t i = 0; i < readouts.size(); ++i) {
    LIMPID_RETURN_IF_ERROR(ReadLogits(i, logits[static_cast<int64_t>(i)]));
    points_.push_back(
        {plan_.points()[i].position, readouts[i], summary_.points[i].target});
  }
  LIMPID_ASSIGN_OR_RETURN(const std::vector<AttributionResult> results,
                          attribution_->Finish(
                              points_,
                              [&](int64_t done, int64_t total) {
                                return sink_.OnProgress(done, total, "step");
                              },
                              cancel_));
  for (size_t i = 0; i < results.size(); ++i) {
    LIMPID_RETURN_IF_ERROR(SendResult(i, results[i]));
  }
  if (!plan_.tokens().empty()) {
    LIMPID_RETURN_IF_ERROR(Send("tokens", TokenIds()));
  }
  LIMPID_RETURN_IF_ERROR(outbox_.Flush());
  ReadErrors();
  summary_.num_tensors = outbox_.num_tensors();
  summary_.num_non_finite = outbox_.num_non_finite();
  summary_.units = plan_.units();
  summary_.cost = plan_.cost();
  summary_.compute_time = absl::Now() - start;
  return sink_.OnSummary(std::move(summary_));
}

absl::Status Runner::SendHeader() {
  ResultHeader header;
  header.method = plan_.method();
  const Tokenizer* tokenizer = plan_.servable().tokenizer();
  for (const TokenSpan& span : plan_.tokens()) {
    ResultToken token;
    token.id = span.id;
    token.begin = span.begin;
    token.end = span.end;
    if (tokenizer) {
      token.piece = tokenizer->Piece(span.id);
      token.special = tokenizer->IsSpecial(span.id);
    }
    header.tokens.push_back(std::move(token));
  }
  const ModelInfo& info = network_.info();
  if (info.modality == Modality::kImage) {
    header.patch_grid = {info.grid_rows, info.grid_columns};
  }
  header.num_positions = plan_.length();
  header.positions = plan_.positions();
  if (request_.attention.kind != AttentionKind::kNone) {
    header.layers = plan_.layers();
  }
  return sink_.OnHeader(std::move(header));
}

absl::Status Runner::OnLayer(int64_t layer, const BlockAttention& attention) {
  const int64_t num_layers = network_.info().num_layers;
  const bool returned = IsReturned(layer);
  const RowRange rows = plan_.RowsOf(returned);
  if (rows.size() == 0) {
    return sink_.OnProgress(layer + 1, num_layers, "layer");
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
    const RowRange needed = plan_.RowsOf(/*returned=*/false);
    LIMPID_RETURN_IF_ERROR(attribution_->OnLayer(
        layer, matrix.narrow(0, needed.begin - rows.begin, needed.size()),
        needed));
  }
  if (shared) reduced = matrix;
  if (to_return) reduced = to_return->Finish();
  if (returned) {
    summary_.layers.push_back({layer, 0});
    errors_.push_back(meter.Finish());
    at::Tensor entries;
    if (per_channel) {
      entries = collector->Finish();
    } else if (wants_entries) {
      entries = reduced.narrow(0, asked.begin - rows.begin, asked.size());
    }
    LIMPID_RETURN_IF_ERROR(SendLayer(layer, meter, asked, entries));
  }
  return sink_.OnProgress(layer + 1, num_layers, "layer");
}

absl::Status Runner::SendLayer(int64_t layer, ReconstructionMeter& meter,
                               RowRange rows, const at::Tensor& entries) {
  const std::string name = absl::StrCat("layers.", layer, ".");
  const bool matrix = request_.attention.kind == AttentionKind::kMatrix;
  const bool per_channel = plan_.returned_reduction() == ChannelReduction::kAll;
  if (entries.defined() && matrix) {
    LIMPID_RETURN_IF_ERROR(Send(name + "attention",
                                ThinnedMatrix(entries, request_.attention),
                                network_.info().causal));
    if (per_channel) {
      LIMPID_RETURN_IF_ERROR(
          Send(name + "bias", PickChannels(meter.map().bias)));
    }
  } else if (entries.defined()) {
    for (size_t i = 0; i < plan_.points().size(); ++i) {
      const int64_t row = plan_.points()[i].position;
      LIMPID_RETURN_IF_ERROR(
          Send(PrefixOf(i) + name + "attention",
               ThinnedRow(entries.select(-2, row - rows.begin),
                          request_.attention)));
      if (per_channel) {
        LIMPID_RETURN_IF_ERROR(Send(PrefixOf(i) + name + "bias",
                                    PickChannels(meter.map().bias[row])));
      }
    }
  }
  if (request_.debug_tensors) {
    LIMPID_RETURN_IF_ERROR(
        Send(name + "value", PickChannels(meter.map().value)));
    LIMPID_RETURN_IF_ERROR(
        Send(name + "output", PickChannels(meter.map().output)));
  }
  return absl::OkStatus();
}

void Runner::ReadErrors() {
  if (errors_.empty()) return;
  const at::Tensor errors = at::stack(errors_).to(at::kCPU, at::kDouble);
  for (size_t i = 0; i < summary_.layers.size(); ++i) {
    summary_.layers[i].reconstruction_error =
        errors[static_cast<int64_t>(i)].item().toDouble();
  }
}

at::Tensor Runner::PickChannels(const at::Tensor& tensor) const {
  const std::vector<int64_t>& channels = request_.attention.channels;
  if (channels.empty()) return tensor;
  return tensor.index_select(
      -1, at::tensor(channels, at::kLong).to(tensor.device()));
}

absl::Status Runner::ReadLogits(size_t index, const at::Tensor& logits) {
  const PlannedPoint& point = plan_.points()[index];
  PointSummary& summary = summary_.points.emplace_back();
  summary.position = point.position;
  const at::Tensor on_cpu = logits.to(at::kCPU, at::kDouble);
  const at::Tensor probabilities = on_cpu.softmax(0);
  const int64_t count =
      std::min(std::max<int64_t>(1, request_.top_k), on_cpu.size(0));
  const auto [largest, ids] = on_cpu.topk(count);
  const Tokenizer* tokenizer = plan_.servable().tokenizer();
  for (int64_t i = 0; i < count; ++i) {
    Prediction prediction;
    prediction.id = ids[i].item().toLong();
    prediction.logit = largest[i].item().toFloat();
    prediction.probability = probabilities[prediction.id].item().toFloat();
    if (tokenizer) prediction.piece = tokenizer->Piece(prediction.id);
    const std::vector<std::string>& classes = network_.info().class_names;
    if (!classes.empty()) prediction.piece = classes[prediction.id];
    summary.predictions.push_back(std::move(prediction));
  }
  switch (point.target.kind) {
    case Target::Kind::kPredicted:
      summary.target.id = summary.predictions.front().id;
      break;
    case Target::Kind::kContrast:
      summary.target.baseline_id = point.target.baseline_id;
      [[fallthrough]];
    default:
      summary.target.id = point.target.id;
  }
  return request_.logits ? Send(PrefixOf(index) + "logits", logits)
                         : absl::OkStatus();
}

absl::Status Runner::SendResult(size_t index, const AttributionResult& result) {
  const std::string prefix = PrefixOf(index);
  PointSummary& summary = summary_.points[index];
  const at::Tensor values = WithoutSpecial(result.values);
  const at::Tensor map = OnGrid(values);
  LIMPID_RETURN_IF_ERROR(Send(prefix + "attribution", map));
  if (result.layers.defined()) {
    LIMPID_RETURN_IF_ERROR(Send(prefix + "attribution.layers", result.layers));
  }
  if (request_.debug_tensors) {
    if (result.gradient.defined()) {
      LIMPID_RETURN_IF_ERROR(Send(prefix + "gradient", result.gradient));
    }
    if (result.elementwise.defined()) {
      LIMPID_RETURN_IF_ERROR(
          Send(prefix + "attribution.elementwise", result.elementwise));
    }
  }
  summary.constant = result.constant;
  summary.completeness_error = result.completeness_error;
  const auto numbers = [](const at::Tensor& tensor) {
    const at::Tensor packed = tensor.to(at::kCPU, at::kFloat).contiguous();
    const float* const data = packed.const_data_ptr<float>();
    return std::vector<float>(data, data + packed.numel());
  };
  summary.attribution = numbers(map);
  if (!plan_.units().empty()) {
    const at::Tensor sums = SumOverUnits(map);
    LIMPID_RETURN_IF_ERROR(Send(prefix + "attribution.units", sums));
    summary.units = numbers(sums);
  }
  return request_.faithfulness ? MeasurePoint(index, values) : absl::OkStatus();
}

absl::Status Runner::MeasurePoint(size_t index, const at::Tensor& values) {
  LIMPID_ASSIGN_OR_RETURN(
      summary_.points[index].faithfulness,
      MeasureFaithfulness(
          *context_, points_[index], values.to(at::kCPU),
          plan_.Removable(points_[index].position), *request_.faithfulness,
          [&](int64_t done, int64_t total) {
            return sink_.OnProgress(done, total, "variant");
          },
          cancel_));
  return absl::OkStatus();
}

at::Tensor Runner::SumOverUnits(const at::Tensor& map) const {
  std::vector<at::Tensor> sums;
  for (const ResultUnit& unit : plan_.units()) {
    const std::vector<int64_t>& region = unit.region;
    const at::Tensor part =
        region.empty()
            ? map.slice(0, static_cast<int64_t>(unit.begin),
                        static_cast<int64_t>(unit.end))
            : map.slice(0, region[0], region[1]).slice(1, region[2], region[3]);
    sums.push_back(part.sum());
  }
  return at::stack(sums);
}

at::Tensor Runner::WithoutSpecial(const at::Tensor& values) const {
  const Tokenizer* tokenizer = plan_.servable().tokenizer();
  if (request_.options.special_tokens.value_or(true) || tokenizer == nullptr) {
    return values;
  }
  at::Tensor kept = values.clone();
  for (int64_t i = 0; i < plan_.length(); ++i) {
    if (tokenizer->IsSpecial(plan_.tokens()[i].id)) kept[i] = 0;
  }
  return kept;
}

at::Tensor Runner::TokenIds() const {
  at::Tensor ids = at::empty({plan_.length()}, at::kLong);
  int64_t* const values = ids.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < plan_.length(); ++i) {
    values[i] = plan_.tokens()[i].id;
  }
  return ids;
}

at::Tensor Runner::OnGrid(const at::Tensor& values) const {
  const ModelInfo& info = network_.info();
  if (info.modality != Modality::kImage) return values;
  const int64_t place = info.class_token;
  return at::cat({values.narrow(0, 0, place),
                  values.narrow(0, place + 1, values.size(0) - place - 1)})
      .view({info.grid_rows, info.grid_columns});
}

}  // namespace

absl::Status RunPlan(const ExplanationPlan& plan, ResultSink& sink,
                     const CancelToken& cancel) {
  return Runner(plan, sink, cancel).Run();
}

}  // namespace limpid
