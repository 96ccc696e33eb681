// SPDX-License-Identifier: Apache-2.0
#include "server/explain/reply.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/explain/thinning.h"

namespace limpid {

std::string Reply::PrefixOf(size_t index) {
  return index == 0 ? "" : absl::StrCat("points.", index, ".");
}

absl::Status Reply::Header() {
  ResultHeader header;
  header.method = plan_.method();
  header.device = device_;
  header.precision = plan_.request().precision;
  header.arithmetic = info_.precisions.at(header.precision);
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
  if (info_.modality == Modality::kImage) {
    header.patch_grid = {info_.grid_rows, info_.grid_columns};
  }
  header.num_positions = plan_.length();
  header.positions = plan_.positions();
  if (plan_.request().attention.kind != AttentionKind::kNone) {
    header.layers = plan_.layers();
  }
  return sink_.OnHeader(std::move(header));
}

absl::Status Reply::Layer(int64_t layer, ReconstructionMeter& meter,
                          RowRange rows, const at::Tensor& entries) {
  summary_.layers.push_back({layer, 0});
  errors_.push_back(meter.Finish());
  const ExplainRequest& request = plan_.request();
  const std::string name = absl::StrCat("layers.", layer, ".");
  const bool matrix = request.attention.kind == AttentionKind::kMatrix;
  const bool per_channel = plan_.returned_reduction() == ChannelReduction::kAll;
  if (entries.defined() && matrix) {
    LIMPID_RETURN_IF_ERROR(Send(name + "attention",
                                ThinnedMatrix(entries, request.attention),
                                info_.causal));
    if (per_channel) {
      LIMPID_RETURN_IF_ERROR(
          Send(name + "bias", PickChannels(meter.map().bias)));
    }
  } else if (entries.defined()) {
    for (size_t i = 0; i < plan_.points().size(); ++i) {
      const int64_t row = plan_.points()[i].position;
      LIMPID_RETURN_IF_ERROR(Send(
          PrefixOf(i) + name + "attention",
          ThinnedRow(entries.select(-2, row - rows.begin), request.attention)));
      if (per_channel) {
        LIMPID_RETURN_IF_ERROR(Send(PrefixOf(i) + name + "bias",
                                    PickChannels(meter.map().bias[row])));
      }
    }
  }
  if (request.debug_tensors) {
    LIMPID_RETURN_IF_ERROR(
        Send(name + "value", PickChannels(meter.map().value)));
    LIMPID_RETURN_IF_ERROR(
        Send(name + "output", PickChannels(meter.map().output)));
  }
  return absl::OkStatus();
}

at::Tensor Reply::PickChannels(const at::Tensor& tensor) const {
  const std::vector<int64_t>& channels = plan_.request().attention.channels;
  if (channels.empty()) return tensor;
  return tensor.index_select(
      -1, at::tensor(channels, at::kLong).to(tensor.device()));
}

absl::StatusOr<ResolvedTarget> Reply::Logits(const at::Tensor& logits) {
  const size_t index = summary_.points.size();
  const PlannedPoint& point = plan_.points()[index];
  PointSummary& summary = summary_.points.emplace_back();
  summary.position = point.position;
  const at::Tensor on_cpu = logits.to(at::kCPU, at::kDouble);
  const at::Tensor probabilities = on_cpu.softmax(0);
  const int64_t count =
      std::min(std::max<int64_t>(1, plan_.request().top_k), on_cpu.size(0));
  const auto [largest, ids] = on_cpu.topk(count);
  const Tokenizer* tokenizer = plan_.servable().tokenizer();
  for (int64_t i = 0; i < count; ++i) {
    Prediction prediction;
    prediction.id = ids[i].item().toLong();
    prediction.logit = largest[i].item().toFloat();
    prediction.probability = probabilities[prediction.id].item().toFloat();
    if (tokenizer) prediction.piece = tokenizer->Piece(prediction.id);
    const std::vector<std::string>& classes = info_.class_names;
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
  if (plan_.request().logits) {
    LIMPID_RETURN_IF_ERROR(Send(PrefixOf(index) + "logits", logits));
  }
  return summary_.points[index].target;
}

absl::StatusOr<at::Tensor> Reply::Result(size_t index,
                                         const AttributionResult& result) {
  const std::string prefix = PrefixOf(index);
  PointSummary& summary = summary_.points[index];
  const at::Tensor values = WithoutSpecial(result.values);
  const at::Tensor map = OnGrid(values);
  LIMPID_RETURN_IF_ERROR(Send(prefix + "attribution", map));
  if (result.layers.defined()) {
    LIMPID_RETURN_IF_ERROR(Send(prefix + "attribution.layers", result.layers));
  }
  if (plan_.request().debug_tensors) {
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
  return values;
}

absl::Status Reply::Finish() {
  if (!plan_.tokens().empty()) {
    LIMPID_RETURN_IF_ERROR(Send("tokens", TokenIds(plan_)));
  }
  LIMPID_RETURN_IF_ERROR(outbox_.Flush());
  ReadErrors();
  summary_.num_tensors = outbox_.num_tensors();
  summary_.num_non_finite = outbox_.num_non_finite();
  summary_.units = plan_.units();
  summary_.cost = plan_.cost();
  return sink_.OnSummary(std::move(summary_));
}

at::Tensor Reply::SumOverUnits(const at::Tensor& map) const {
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

at::Tensor Reply::WithoutSpecial(const at::Tensor& values) const {
  const Tokenizer* tokenizer = plan_.servable().tokenizer();
  if (plan_.request().options.special_tokens.value_or(true) ||
      tokenizer == nullptr) {
    return values;
  }
  at::Tensor kept = values.clone();
  for (int64_t i = 0; i < plan_.length(); ++i) {
    if (tokenizer->IsSpecial(plan_.tokens()[i].id)) kept[i] = 0;
  }
  return kept;
}

at::Tensor Reply::OnGrid(const at::Tensor& values) const {
  if (info_.modality != Modality::kImage) return values;
  const int64_t place = info_.class_token;
  return at::cat({values.narrow(0, 0, place),
                  values.narrow(0, place + 1, values.size(0) - place - 1)})
      .view({info_.grid_rows, info_.grid_columns});
}

void Reply::ReadErrors() {
  if (errors_.empty()) return;
  // Layers of a network that is split have theirs on several devices.
  for (at::Tensor& error : errors_) error = error.to(errors_.back().device());
  const at::Tensor errors = at::stack(errors_).to(at::kCPU, at::kDouble);
  for (size_t i = 0; i < summary_.layers.size(); ++i) {
    summary_.layers[i].reconstruction_error =
        errors[static_cast<int64_t>(i)].item().toDouble();
  }
}

at::Tensor TokenIds(const ExplanationPlan& plan) {
  at::Tensor ids = at::empty({plan.length()}, at::kLong);
  int64_t* const values = ids.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < plan.length(); ++i) {
    values[i] = plan.tokens()[i].id;
  }
  return ids;
}

}  // namespace limpid
