// SPDX-License-Identifier: Apache-2.0
#include "client/cli/pictures.h"

#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/cli/flag_values.h"
#include "client/tensor_codec.h"
#include "server/render/heatmap_png.h"
#include "server/render/html_report.h"

namespace limpid::cli {
namespace {

std::string TitleOf(const Explanation& explanation) {
  return absl::StrCat(explanation.header.model(), " - ",
                      explanation.header.method());
}

std::vector<std::string> CaptionLines(const Explanation& explanation) {
  const v1::ExplanationSummary& summary = explanation.summary;
  std::vector<std::string> candidates;
  for (const v1::Candidate& candidate : summary.predictions()) {
    if (candidates.size() == 3) break;
    candidates.push_back(absl::StrFormat("%s %.1f%%",
                                         candidate.piece().empty()
                                             ? absl::StrCat("#", candidate.id())
                                             : candidate.piece(),
                                         100 * candidate.probability()));
  }
  std::vector<std::string> lines;
  if (!candidates.empty()) {
    lines.push_back(
        absl::StrCat("prediction: ", absl::StrJoin(candidates, ", ")));
  }
  std::string last = absl::StrCat("position ", explanation.header.position());
  if (const std::string target = FormatTarget(summary.target());
      !target.empty()) {
    last = absl::StrCat("target ", target, ", ", last);
  }
  lines.push_back(last);
  return lines;
}

// Mean of the absolute values over the first of `count` equal parts.
std::vector<float> MeanAbs(const std::vector<float>& values, int64_t count) {
  const size_t size = count > 0 ? values.size() / count : 0;
  std::vector<double> sums(size, 0.0);
  for (size_t i = 0; i < values.size(); ++i) {
    sums[i % size] += std::abs(values[i]);
  }
  std::vector<float> out(size);
  for (size_t i = 0; i < size; ++i)
    out[i] = static_cast<float>(sums[i] / count);
  return out;
}

std::optional<LayerView> MakeLayer(int32_t layer,
                                   const v1::TensorHeader& header,
                                   std::vector<float> values, bool matrix) {
  const int rank = header.shape_size();
  const int inner = matrix ? 2 : 1;  // dimensions without the channels
  if (values.empty() || (rank != inner && rank != inner + 1)) {
    return std::nullopt;
  }
  if (rank == inner + 1) values = MeanAbs(values, header.shape(0));
  LayerView view;
  view.layer = layer;
  view.rows = matrix ? header.shape(rank - 2) : 1;
  view.columns = header.shape(rank - 1);
  view.values = std::move(values);
  return view;
}

// The index of the explained token, if every token has its own value.
std::optional<size_t> ShownPosition(const Explanation& explanation,
                                    const AttributionView& view) {
  if (view.labels.size() !=
          static_cast<size_t>(explanation.header.tokens_size()) ||
      explanation.header.position() < 0) {
    return std::nullopt;
  }
  return static_cast<size_t>(explanation.header.position());
}

}  // namespace

absl::StatusOr<AttributionView> ViewAttribution(const Explanation& explanation,
                                                int point) {
  const auto found = explanation.tensors.find(
      point == 0 ? "attribution"
                 : absl::StrCat("points.", point, ".attribution"));
  if (found == explanation.tensors.end()) {
    return absl::InvalidArgumentError("the reply has no attribution");
  }
  absl::StatusOr<std::vector<float>> values = UnpackFloats(found->second);
  if (!values.ok()) return values.status();
  AttributionView view;
  view.values = *std::move(values);
  const auto& shape = found->second.header().shape();
  if (shape.size() == 2 && !view.values.empty()) {
    view.grid_rows = shape.Get(0);
    view.grid_columns = shape.Get(1);
    return view;
  }
  const size_t count = view.values.size();
  const v1::ExplanationHeader& header = explanation.header;
  if (static_cast<size_t>(header.tokens_size()) == count) {
    for (const v1::Token& token : header.tokens()) {
      // Ids that were given without a tokenizer have no text.
      view.labels.push_back(!token.piece_bytes().empty() ? token.piece_bytes()
                            : !token.piece().empty()
                                ? token.piece()
                                : absl::StrCat("#", token.id()));
    }
  } else if (static_cast<size_t>(explanation.summary.attributions_size()) ==
             count) {
    for (const auto& unit : explanation.summary.attributions()) {
      view.labels.push_back(unit.piece());
    }
  } else {
    for (size_t i = 0; i < count; ++i) view.labels.push_back(absl::StrCat(i));
  }
  if (count == 0) {
    return absl::InvalidArgumentError("the attribution is empty");
  }
  return view;
}

absl::StatusOr<std::vector<LayerView>> ViewLayers(
    const Explanation& explanation, bool matrices) {
  std::map<int32_t, LayerView> layers;
  for (const auto& [name, tensor] : explanation.tensors) {
    absl::string_view number = name;
    int32_t layer = 0;
    if (!absl::ConsumePrefix(&number, "layers.") ||
        !absl::ConsumeSuffix(&number, ".attention") ||
        !absl::SimpleAtoi(number, &layer)) {
      continue;
    }
    absl::StatusOr<std::vector<float>> values = UnpackFloats(tensor);
    if (!values.ok()) return values.status();
    if (auto view =
            MakeLayer(layer, tensor.header(), *std::move(values), matrices)) {
      layers[layer] = *std::move(view);
    }
  }
  std::vector<LayerView> out;
  for (auto& [layer, view] : layers) out.push_back(std::move(view));
  return out;
}

absl::StatusOr<std::string> AttributionPng(const Explanation& explanation) {
  absl::StatusOr<AttributionView> view = ViewAttribution(explanation);
  if (!view.ok()) return view.status();
  const render::Caption caption{TitleOf(explanation),
                                CaptionLines(explanation)};
  if (view->grid_rows > 0) {
    render::MatrixFigure figure;
    figure.caption = caption;
    figure.rows = view->grid_rows;
    figure.columns = view->grid_columns;
    figure.values = view->values;
    return render::RenderGridPng(figure);
  }
  render::AttributionFigure figure;
  figure.caption = caption;
  figure.position = ShownPosition(explanation, *view);
  figure.tokens = std::move(view->labels);
  figure.values = std::move(view->values);
  return render::RenderAttributionPng(figure);
}

absl::StatusOr<std::string> LayerPng(const Explanation& explanation,
                                     const LayerView& layer) {
  render::MatrixFigure figure;
  figure.caption = {
      absl::StrCat(explanation.header.model(), " - layer ", layer.layer),
      {"rows: target position, columns: source position"}};
  figure.rows = layer.rows;
  figure.columns = layer.columns;
  figure.values = layer.values;
  for (const v1::Token& token : explanation.header.tokens()) {
    figure.column_labels.push_back(token.piece());
  }
  figure.row_labels = figure.column_labels;
  return render::RenderMatrixPng(figure);
}

absl::StatusOr<std::string> ReportHtml(const Explanation& explanation,
                                       bool matrices) {
  absl::StatusOr<AttributionView> view = ViewAttribution(explanation);
  if (!view.ok()) return view.status();
  absl::StatusOr<std::vector<LayerView>> layers =
      ViewLayers(explanation, matrices);
  if (!layers.ok()) return layers.status();
  const v1::ExplanationHeader& header = explanation.header;
  const v1::ExplanationSummary& summary = explanation.summary;
  render::Report report;
  report.title = TitleOf(explanation);
  report.facts = {
      {"model", absl::StrCat(header.model(), " (", header.architecture(), ")")},
      {"digest", header.model_digest()},
      {"method", header.method()},
      {"target", FormatTarget(summary.target())},
      {"position", absl::StrCat(header.position())},
      {"reconstruction error",
       absl::StrFormat("%.3g at most", summary.max_reconstruction_error())},
      {"device", header.device()},
      {"server", header.server_version()}};
  if (summary.has_completeness_error()) {
    report.facts.emplace_back(
        "completeness error",
        absl::StrFormat("%.3g", summary.completeness_error()));
  }
  for (const v1::Candidate& candidate : summary.predictions()) {
    report.predictions.push_back({candidate.piece(), candidate.id(),
                                  candidate.logit(), candidate.probability()});
  }
  report.position = ShownPosition(explanation, *view);
  report.tokens = std::move(view->labels);
  report.attribution = std::move(view->values);
  report.grid_rows = view->grid_rows;
  report.grid_columns = view->grid_columns;
  std::map<int32_t, double> errors;
  for (const v1::LayerReport& layer : summary.layers()) {
    errors[layer.layer()] = layer.reconstruction_error();
  }
  for (LayerView& layer : *layers) {
    render::LayerPanel panel;
    panel.layer = layer.layer;
    panel.rows = layer.rows;
    panel.columns = layer.columns;
    panel.values = std::move(layer.values);
    if (const auto error = errors.find(layer.layer); error != errors.end()) {
      panel.reconstruction_error = error->second;
    }
    report.layers.push_back(std::move(panel));
  }
  return render::RenderHtmlReport(report);
}

}  // namespace limpid::cli
