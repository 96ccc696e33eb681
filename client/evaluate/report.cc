// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/report.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/evaluate/svg_plot.h"

namespace limpid::evaluate {
namespace {

using Json = nlohmann::ordered_json;

// Titles of the figures by which the control differs from random though it
// should not.
std::vector<std::string> ControlDiffers(const std::vector<Figure>& figures,
                                        const Results& results) {
  std::vector<std::string> titles;
  for (size_t f = 0; f < figures.size(); ++f) {
    if (figures[f].order_only &&
        results.rows.back().figures[f].Apart(results.rows[0].figures[f])) {
      titles.push_back(figures[f].title);
    }
  }
  return titles;
}

const char* FormName(v1::AttentionForm form) {
  return form == v1::ATTENTION_FORM_STATE ? "state" : "full";
}

Json FiguresJson(const std::vector<Figure>& figures,
                 const std::vector<Interval>& intervals) {
  Json json;
  for (size_t f = 0; f < figures.size(); ++f) {
    json[figures[f].key] = {{"value", intervals[f].value},
                            {"low", intervals[f].low},
                            {"high", intervals[f].high}};
  }
  return json;
}

// The cells of a row; the first value between `mark`s.
std::string Cells(const std::vector<Figure>& figures,
                  const std::vector<Interval>& intervals, const char* mark) {
  std::string text;
  for (size_t f = 0; f < figures.size(); ++f) {
    const char* around = f == 0 ? mark : "";
    const int decimals = figures[f].decimals;
    absl::StrAppendFormat(&text, " %s%.*f%s [%.*f, %.*f] |", around, decimals,
                          intervals[f].value, around, decimals,
                          intervals[f].low, decimals, intervals[f].high);
  }
  return text;
}

}  // namespace

std::string ResultsJson(const Protocol& protocol, const Results& results,
                        const ReportContext& context) {
  const std::vector<Figure> figures = protocol.figures();
  const std::vector<Curve> curves = protocol.curves();
  Json json = {{"protocol", protocol.name()},
               {"model", context.model},
               {"model_digest", context.model_digest},
               {"architecture", context.architecture},
               {"items", protocol.num_items()},
               {"data", protocol.description()},
               {"seed", context.seed},
               {"resamples", context.resamples},
               {"rows", Json::array()},
               {"full_minus_state", Json::array()},
               {"skipped", Json::array()}};
  for (const RowResult& row : results.rows) {
    Json entry = {{"row", row.row.key}};
    if (!row.row.method.empty()) entry["method"] = row.row.method;
    if (row.row.form != v1::ATTENTION_FORM_UNSPECIFIED) {
      entry["form"] = FormName(row.row.form);
    }
    entry["figures"] = FiguresJson(figures, row.figures);
    for (size_t c = 0; c < curves.size(); ++c) {
      entry["curves"].push_back({{"title", curves[c].title},
                                 {"x", curves[c].x},
                                 {"y", row.curves[c]}});
    }
    json["rows"].push_back(std::move(entry));
  }
  for (const FormDifference& difference : results.differences) {
    json["full_minus_state"].push_back(
        {{"method", difference.method},
         {"figures", FiguresJson(figures, difference.figures)}});
  }
  for (const SkippedRow& row : results.skipped) {
    json["skipped"].push_back({{"row", row.title}, {"reason", row.reason}});
  }
  json["best"] = results.rows[results.best].row.key;
  json["control_like_random"] = ControlDiffers(figures, results).empty();
  return json.dump(1) + "\n";
}

std::string ResultsMarkdown(const Protocol& protocol, const Results& results,
                            const ReportContext& context) {
  const std::vector<Figure> figures = protocol.figures();
  std::string text =
      absl::StrCat("`", protocol.name(), "`, `", context.model,
                   "`: ", protocol.description(), ", seed ", context.seed, ", ",
                   context.resamples, " bootstrap samples.\n\n| attribution |");
  std::string rule = "| --- |";
  for (const Figure& figure : figures) {
    absl::StrAppend(&text, " ", figure.title,
                    figure.higher_is_better ? " ↑ |" : " ↓ |");
    rule += " --- |";
  }
  absl::StrAppend(&text, "\n", rule, "\n");
  for (size_t r = 0; r < results.rows.size(); ++r) {
    const RowResult& row = results.rows[r];
    absl::StrAppend(&text, "| ", row.row.title, " |",
                    Cells(figures, row.figures, r == results.best ? "**" : ""),
                    "\n");
  }
  for (const FormDifference& difference : results.differences) {
    absl::StrAppend(&text, "| ", difference.method, ", full minus state |",
                    Cells(figures, difference.figures, ""), "\n");
  }
  text += "\n";
  for (const SkippedRow& row : results.skipped) {
    absl::StrAppend(&text, "No row ", row.title, ": ", row.reason, ".\n");
  }
  const std::vector<std::string> differs = ControlDiffers(figures, results);
  if (differs.empty()) {
    absl::StrAppend(&text, "Control: the intervals of ",
                    results.rows.back().row.title,
                    " and random touch in every column that depends on the "
                    "order of the values alone.\n");
  } else {
    absl::StrAppend(&text, "Control: ", results.rows.back().row.title,
                    " differs from random in ", absl::StrJoin(differs, ", "),
                    ".\n");
  }
  return text;
}

std::string IntervalsSvg(const Protocol& protocol, const Results& results,
                         const ReportContext& context) {
  std::vector<PlotBar> bars;
  for (const RowResult& row : results.rows) {
    bars.push_back({row.row.title, row.figures[0]});
  }
  const Figure figure = protocol.figures()[0];
  return RenderIntervals(
      absl::StrCat(protocol.name(), ", ", context.model, ": ", figure.title,
                   figure.higher_is_better ? " (higher is better)"
                                           : " (lower is better)"),
      bars);
}

std::string CurvesSvg(const Protocol& protocol, const Results& results) {
  std::vector<LinePlot> plots;
  const std::vector<Curve> curves = protocol.curves();
  for (size_t c = 0; c < curves.size(); ++c) {
    LinePlot plot{curves[c].title, curves[c].x_title, {}};
    for (const RowResult& row : results.rows) {
      plot.lines.push_back({row.row.title, curves[c].x, row.curves[c],
                            row.row.form == v1::ATTENTION_FORM_STATE ||
                                row.row.kind == Row::Kind::kShuffled});
    }
    plots.push_back(std::move(plot));
  }
  return plots.empty() ? "" : RenderLines(plots);
}

}  // namespace limpid::evaluate
