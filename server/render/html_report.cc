// SPDX-License-Identifier: Apache-2.0
#include "server/render/html_report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/render/colormap.h"
#include "server/render/heatmap_png.h"
#include "server/render/html_template.h"
#include "server/render/token_text.h"

namespace limpid::render {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxBytes = 8 << 20;  // of all matrices, a byte per entry
constexpr int64_t kMinSide = 128, kMaxSide = 1024;  // of one of them

// JSON has no NaN; the page shows null in grey.
Json Number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

Json Numbers(std::span<const float> values) {
  Json out = Json::array();
  for (const float value : values) out.push_back(Number(value));
  return out;
}

Json Texts(std::span<const std::string> texts) {
  Json out = Json::array();
  for (const std::string& text : texts) out.push_back(SafeText(text));
  return out;
}

Json RangeJson(const ValueRange& range) {
  return {{"low", range.low},
          {"high", range.high},
          {"scale",
           range.scale == Scale::kSequential ? "sequential" : "diverging"}};
}

Json TableJson(Scale scale) {
  Json colors = Json::array();
  for (const Rgb& color : ColorTable(scale)) colors.push_back(HexColor(color));
  return colors;
}

// Entries as one byte each, 0 to 254 from the low to the high end of the range
// and 255 for NaN, in base64.
std::string Quantize(std::span<const float> values, const ValueRange& range) {
  std::string bytes;
  bytes.reserve(values.size());
  for (const float value : values) {
    bytes.push_back(static_cast<char>(
        std::isfinite(value) ? std::lround(range.Position(value) * 254) : 255));
  }
  return absl::Base64Escape(bytes);
}

bool Fits(int64_t rows, int64_t columns, size_t count) {
  return rows > 0 && columns > 0 &&
         rows <= std::numeric_limits<int64_t>::max() / columns &&
         static_cast<uint64_t>(rows * columns) == count;
}

// How many rows and columns each matrix may have.
int64_t SideLimit(const Report& report) {
  int64_t matrices = 0;
  for (const ReportRun& run : report.runs) {
    for (const LayerPanel& panel : run.layers) {
      if (panel.rows > 1) {
        matrices += static_cast<int64_t>(panel.reductions.size());
      }
    }
  }
  const double side =
      std::sqrt(static_cast<double>(kMaxBytes) /
                static_cast<double>(std::max<int64_t>(matrices, 1)));
  return std::clamp(static_cast<int64_t>(side), kMinSide, kMaxSide);
}

absl::StatusOr<Json> LayerJson(const LayerPanel& panel, int64_t side_limit) {
  Json out = {{"layer", panel.layer},
              {"rows", panel.rows},
              {"columns", panel.columns},
              {"factor", 1},
              {"reductions", Json::array()}};
  out["error"] = panel.reconstruction_error
                     ? Number(*panel.reconstruction_error)
                     : Json(nullptr);
  if (panel.reductions.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", panel.layer, " has no values"));
  }
  for (const ReducedValues& reduction : panel.reductions) {
    if (!Fits(panel.rows, panel.columns, reduction.values.size())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "layer ", panel.layer, ": ", panel.rows, " x ", panel.columns,
          " entries, but ", reduction.values.size(), " values"));
    }
    const ValueRange range = RangeOf(reduction.values);
    Json one = {{"name", SafeText(reduction.name)},
                {"range", RangeJson(range)}};
    if (panel.rows == 1) {
      one["row"] = Numbers(reduction.values);
    } else {
      const ReducedMatrix matrix =
          ReduceMatrix(reduction.values, panel.rows, panel.columns, side_limit);
      out["rows"] = matrix.rows;
      out["columns"] = matrix.columns;
      out["factor"] = matrix.factor;
      one["bytes"] = Quantize(matrix.values, range);
    }
    out["reductions"].push_back(std::move(one));
  }
  return out;
}

Json CurvesJson(const ReportRun& run) {
  const auto curve = [](const std::optional<ReportCurve>& one) {
    return one ? Json{{"fraction", Numbers(one->fraction)},
                      {"score", Numbers(one->score)},
                      {"area", Number(one->area)},
                      {"random", Number(one->random_area)}}
               : Json(nullptr);
  };
  return {{"deletion", curve(run.deletion)},
          {"insertion", curve(run.insertion)}};
}

absl::Status CheckRun(const ReportRun& run) {
  const bool grid = run.grid_rows != 0 || run.grid_columns != 0;
  if (grid ? !Fits(run.grid_rows, run.grid_columns, run.attribution.size())
           : run.tokens.size() != run.attribution.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a report needs one value per token or patch: ", run.attribution.size(),
        " values, ", run.tokens.size(), " tokens, ", run.grid_rows, " x ",
        run.grid_columns, " patches"));
  }
  for (const auto* curve : {&run.deletion, &run.insertion}) {
    if (*curve && (*curve)->fraction.size() != (*curve)->score.size()) {
      return absl::InvalidArgumentError(
          "a curve needs as many scores as shares");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> RunJson(const ReportRun& run, int64_t side_limit) {
  if (absl::Status status = CheckRun(run); !status.ok()) return status;
  Json out = {{"name", SafeText(run.name)},
              {"facts", Json::array()},
              {"predictions", Json::array()},
              {"tokens", Texts(run.tokens)},
              {"attribution", Numbers(run.attribution)},
              {"range", RangeJson(RangeOf(run.attribution))},
              {"grid", {run.grid_rows, run.grid_columns}},
              {"curves", CurvesJson(run)},
              {"layers", Json::array()}};
  out["position"] = run.position ? Json(*run.position) : Json(nullptr);
  for (const auto& [name, value] : run.facts) {
    out["facts"].push_back({SafeText(name), SafeText(value)});
  }
  for (const ReportCandidate& candidate : run.predictions) {
    out["predictions"].push_back(
        {{"piece", SafeText(candidate.piece)},
         {"id", candidate.id},
         {"logit", Number(candidate.logit)},
         {"probability", Number(candidate.probability)}});
  }
  for (const LayerPanel& panel : run.layers) {
    absl::StatusOr<Json> layer = LayerJson(panel, side_limit);
    if (!layer.ok()) return layer.status();
    out["layers"].push_back(*std::move(layer));
  }
  return out;
}

absl::StatusOr<Json> ComparisonJson(const Report& report) {
  if (!report.comparison) return Json(nullptr);
  const ReportComparison& comparison = *report.comparison;
  Json out = {{"unit", comparison.unit},
              {"labels", Texts(comparison.labels)},
              {"values", Json::array()},
              {"ranges", Json::array()}};
  for (const std::vector<float>& values : comparison.values) {
    if (values.empty() || values.size() != comparison.values[0].size()) {
      return absl::InvalidArgumentError(
          "a comparison needs as many values of every explanation");
    }
    out["values"].push_back(Numbers(values));
    out["ranges"].push_back(RangeJson(RangeOf(values)));
  }
  if (comparison.values.size() != report.runs.size()) {
    return absl::InvalidArgumentError(
        "a comparison needs values of every explanation");
  }
  return out;
}

}  // namespace

std::string EscapeJsonForScript(const std::string& json) {
  // These characters occur only inside strings of a JSON text, where a \u
  // escape means the same.
  return absl::StrReplaceAll(json, {{"<", "\\u003c"},
                                    {">", "\\u003e"},
                                    {"&", "\\u0026"},
                                    {"\xE2\x80\xA8", "\\u2028"},
                                    {"\xE2\x80\xA9", "\\u2029"}});
}

std::string EscapeHtml(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"},
                                    {"<", "&lt;"},
                                    {">", "&gt;"},
                                    {"\"", "&quot;"},
                                    {"'", "&#39;"}});
}

absl::StatusOr<std::string> RenderHtmlReport(const Report& report) {
  if (report.runs.empty()) {
    return absl::InvalidArgumentError("a report needs an explanation");
  }
  const int64_t side_limit = SideLimit(report);
  Json data = {{"title", SafeText(report.title)}, {"runs", Json::array()}};
  for (const ReportRun& run : report.runs) {
    absl::StatusOr<Json> one = RunJson(run, side_limit);
    if (!one.ok()) return one.status();
    data["runs"].push_back(*std::move(one));
  }
  absl::StatusOr<Json> comparison = ComparisonJson(report);
  if (!comparison.ok()) return comparison.status();
  data["comparison"] = *std::move(comparison);
  data["picture"] =
      report.picture
          ? Json{{"png", absl::StrCat("data:image/png;base64,",
                                      absl::Base64Escape(report.picture->png))},
                 {"opacity", report.picture->opacity}}
          : Json(nullptr);
  data["colors"] = {{"sequential", TableJson(Scale::kSequential)},
                    {"diverging", TableJson(Scale::kDiverging)}};
  return absl::StrCat(kHtmlHead, EscapeHtml(SafeText(report.title)), kHtmlBody,
                      EscapeJsonForScript(data.dump()), kHtmlTail);
}

}  // namespace limpid::render
