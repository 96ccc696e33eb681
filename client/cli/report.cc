// SPDX-License-Identifier: Apache-2.0
#include "client/cli/report.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/comparison.h"
#include "client/cli/explain_view.h"
#include "client/cli/target_words.h"
#include "server/render/canvas.h"
#include "server/render/html_report.h"

namespace limpid::cli {
namespace {

std::string MillisecondsText(const google::protobuf::Duration& duration) {
  return absl::StrFormat(
      "%.1f ms",
      1e3 * static_cast<double>(duration.seconds()) + 1e-6 * duration.nanos());
}

std::vector<std::pair<std::string, std::string>> FactsOf(
    const Explanation& explanation) {
  const v1::ExplanationHeader& header = explanation.header;
  const v1::ExplanationSummary& summary = explanation.summary;
  std::vector<std::pair<std::string, std::string>> facts = {
      {"model", absl::StrCat(header.model(), " (", header.architecture(), ")")},
      {"digest", header.model_digest()},
      {"method", header.method()},
      {"target", TargetWords(summary.target(), summary.predictions())},
      {"position", absl::StrCat(header.position())},
      {"reconstruction error",
       absl::StrFormat("%.3g at most", summary.max_reconstruction_error())}};
  if (summary.has_completeness_error()) {
    facts.emplace_back(
        "completeness error",
        CompletenessText(summary.completeness_error(), summary.attributions()));
  }
  if (summary.has_constant()) {
    facts.emplace_back("constant", absl::StrFormat("%.6g", summary.constant()));
  }
  if (summary.num_non_finite() > 0) {
    facts.emplace_back("values not finite",
                       absl::StrCat(summary.num_non_finite()));
  }
  if (summary.has_cost()) {
    const v1::Cost& cost = summary.cost();
    facts.emplace_back(
        "cost",
        absl::StrFormat("%.3g operations, at most %d bytes beside the "
                        "weights, reply %d bytes",
                        cost.flops(), cost.peak_bytes(), cost.reply_bytes()));
  }
  if (summary.has_times()) {
    facts.emplace_back(
        "time", absl::StrCat(
                    "queue ", MillisecondsText(summary.times().queue()),
                    ", compute ", MillisecondsText(summary.times().compute())));
  }
  const std::string precision = PrecisionText(header.arithmetic());
  if (!precision.empty()) facts.emplace_back("precision", precision);
  facts.emplace_back("device", header.device());
  facts.emplace_back("server", header.server_version());
  return facts;
}

render::ReportCurve CurveOf(const v1::FaithfulnessCurve& curve) {
  return {{curve.fraction().begin(), curve.fraction().end()},
          {curve.score().begin(), curve.score().end()},
          curve.area(),
          curve.random_area()};
}

absl::StatusOr<std::vector<render::LayerPanel>> PanelsOf(
    const Explanation& explanation, bool matrices) {
  absl::StatusOr<std::vector<LayerView>> layers =
      ViewLayers(explanation, matrices);
  if (!layers.ok()) return layers.status();
  std::map<int32_t, double> errors;
  for (const v1::LayerReport& layer : explanation.summary.layers()) {
    errors[layer.layer()] = layer.reconstruction_error();
  }
  std::vector<render::LayerPanel> panels;
  for (LayerView& layer : *layers) {
    render::LayerPanel panel{layer.layer, layer.rows, layer.columns, {}, {}};
    for (LayerReduction& reduction : layer.reductions) {
      panel.reductions.push_back(
          {std::move(reduction.name), std::move(reduction.values)});
    }
    if (const auto error = errors.find(layer.layer); error != errors.end()) {
      panel.reconstruction_error = error->second;
    }
    panels.push_back(std::move(panel));
  }
  return panels;
}

absl::StatusOr<render::ReportRun> RunOf(const Explanation& explanation,
                                        bool matrices) {
  absl::StatusOr<AttributionView> view = ViewAttribution(explanation);
  if (!view.ok()) return view.status();
  absl::StatusOr<std::vector<render::LayerPanel>> panels =
      PanelsOf(explanation, matrices);
  if (!panels.ok()) return panels.status();
  const v1::ExplanationSummary& summary = explanation.summary;
  render::ReportRun run;
  run.name = TitleOf(explanation);
  run.facts = FactsOf(explanation);
  for (const v1::Candidate& candidate : summary.predictions()) {
    run.predictions.push_back({candidate.piece(), candidate.id(),
                               candidate.logit(), candidate.probability()});
  }
  run.position = ShownPosition(explanation, *view);
  run.tokens = std::move(view->labels);
  run.attribution = std::move(view->values);
  run.grid_rows = view->grid_rows;
  run.grid_columns = view->grid_columns;
  if (summary.has_faithfulness()) {
    run.deletion = CurveOf(summary.faithfulness().deletion());
    run.insertion = CurveOf(summary.faithfulness().insertion());
  }
  run.layers = *std::move(panels);
  return run;
}

}  // namespace

absl::StatusOr<std::string> ReportHtml(
    std::span<const Explanation> explanations, bool matrices,
    const std::optional<Underlay>& underlay) {
  render::Report report;
  for (const Explanation& explanation : explanations) {
    absl::StatusOr<render::ReportRun> run = RunOf(explanation, matrices);
    if (!run.ok()) return run.status();
    report.runs.push_back(*std::move(run));
  }
  if (report.runs.size() == 1) report.title = report.runs[0].name;
  if (report.runs.size() > 1) {
    report.title =
        absl::StrCat("comparison of ", report.runs.size(), " explanations");
    absl::StatusOr<Comparison> comparison = Compare(explanations);
    if (!comparison.ok()) return comparison.status();
    report.comparison = {std::move(comparison->unit),
                         std::move(comparison->labels),
                         std::move(comparison->values)};
  }
  if (underlay) {
    absl::StatusOr<std::string> png = render::EncodeRgbPng(
        static_cast<int>(underlay->image.width),
        static_cast<int>(underlay->image.height), underlay->image.pixels);
    if (!png.ok()) return png.status();
    report.picture = {*std::move(png), underlay->opacity};
  }
  return render::RenderHtmlReport(report);
}

}  // namespace limpid::cli
