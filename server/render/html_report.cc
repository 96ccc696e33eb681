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

constexpr int64_t kMaxCells = 256;  // of a layer's picture, per side

// JSON has no NaN; the page shows null in grey.
Json Number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
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

absl::StatusOr<Json> LayerJson(const LayerPanel& panel) {
  if (!Fits(panel.rows, panel.columns, panel.values.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", panel.layer, ": ", panel.rows, " x ", panel.columns,
        " entries, but ", panel.values.size(), " values"));
  }
  Json out = {{"layer", panel.layer}};
  out["error"] = panel.reconstruction_error
                     ? Number(*panel.reconstruction_error)
                     : Json(nullptr);
  const ValueRange range = RangeOf(panel.values);
  out["range"] = RangeJson(range);
  if (panel.rows == 1) {
    Json row = Json::array();
    for (const float value : panel.values) row.push_back(Number(value));
    out["row"] = std::move(row);
    return out;
  }
  const ReducedMatrix matrix =
      ReduceMatrix(panel.values, panel.rows, panel.columns, kMaxCells);
  out["rows"] = matrix.rows;
  out["columns"] = matrix.columns;
  out["factor"] = matrix.factor;
  out["bytes"] = Quantize(matrix.values, range);
  return out;
}

absl::Status CheckReport(const Report& report) {
  const bool grid = report.grid_rows != 0 || report.grid_columns != 0;
  if (grid ? !Fits(report.grid_rows, report.grid_columns,
                   report.attribution.size())
           : report.tokens.size() != report.attribution.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a report needs one value per token or patch: ",
        report.attribution.size(), " values, ", report.tokens.size(),
        " tokens, ", report.grid_rows, " x ", report.grid_columns, " patches"));
  }
  return absl::OkStatus();
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
  if (absl::Status status = CheckReport(report); !status.ok()) return status;
  Json data;
  data["title"] = SafeText(report.title);
  data["facts"] = Json::array();
  for (const auto& [name, value] : report.facts) {
    data["facts"].push_back({SafeText(name), SafeText(value)});
  }
  data["predictions"] = Json::array();
  for (const ReportCandidate& candidate : report.predictions) {
    data["predictions"].push_back(
        {{"piece", SafeText(candidate.piece)},
         {"id", candidate.id},
         {"logit", Number(candidate.logit)},
         {"probability", Number(candidate.probability)}});
  }
  data["tokens"] = Json::array();
  for (const std::string& token : report.tokens) {
    data["tokens"].push_back(SafeText(token));
  }
  data["attribution"] = Json::array();
  for (const float value : report.attribution) {
    data["attribution"].push_back(Number(value));
  }
  data["range"] = RangeJson(RangeOf(report.attribution));
  data["grid"] = {report.grid_rows, report.grid_columns};
  data["position"] = report.position ? Json(*report.position) : Json(nullptr);
  data["layers"] = Json::array();
  for (const LayerPanel& panel : report.layers) {
    absl::StatusOr<Json> layer = LayerJson(panel);
    if (!layer.ok()) return layer.status();
    data["layers"].push_back(*std::move(layer));
  }
  data["colors"] = {{"sequential", TableJson(Scale::kSequential)},
                    {"diverging", TableJson(Scale::kDiverging)}};
  return absl::StrCat(kHtmlHead, EscapeHtml(SafeText(report.title)), kHtmlBody,
                      EscapeJsonForScript(data.dump()), kHtmlTail);
}

}  // namespace limpid::render
