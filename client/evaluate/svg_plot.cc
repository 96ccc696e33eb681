// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/svg_plot.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace limpid::evaluate {
namespace {

constexpr double kWidth = 720, kLeft = 60, kPlot = 400, kHeight = 230;
constexpr double kLegend = 480;  // x of the legend
constexpr double kLabels = 250;  // width of the names beside intervals
constexpr const char* kColors[] = {"#7f7f7f", "#1f77b4", "#aec7e8", "#17becf",
                                   "#d62728", "#ff7f0e", "#2ca02c", "#9467bd",
                                   "#8c564b", "#e377c2", "#bcbd22", "#000000"};

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

std::string Text(double x, double y, const std::string& anchor,
                 const std::string& text) {
  return absl::StrFormat(
      "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s"
      "</text>\n",
      x, y, anchor, Escaped(text));
}

std::string Line(double x1, double y1, double x2, double y2,
                 const std::string& style) {
  return absl::StrFormat(
      "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1,
      x2, y2, style);
}

std::string Document(double height, const std::string& body) {
  return absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" "
      "height=\"%.0f\" font-family=\"sans-serif\" font-size=\"11\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n%s</svg>\n",
      kWidth, height, body);
}

// Round numbers that cover low ... high.
struct Scale {
  Scale(double low, double high) {
    if (!(high > low)) high = low + 1;
    const double raw = (high - low) / 5;
    const double power = std::pow(10, std::floor(std::log10(raw)));
    step = power;
    for (const double factor : {2.0, 5.0, 10.0}) {
      if (step < raw) step = factor * power;
    }
    first = std::floor(low / step) * step;
    last = std::ceil(high / step) * step;
  }
  double At(double value, double from, double to) const {
    return from + (value - first) / (last - first) * (to - from);
  }
  std::vector<double> Ticks() const {
    std::vector<double> ticks;
    for (int i = 0; first + i * step <= last + step / 2; ++i) {
      ticks.push_back(first + i * step);
    }
    return ticks;
  }
  double first, last, step;
};

std::string Style(size_t index, bool dashed) {
  return absl::StrFormat("stroke=\"%s\" stroke-width=\"1.8\" fill=\"none\"%s",
                         kColors[index % std::size(kColors)],
                         dashed ? " stroke-dasharray=\"5 3\"" : "");
}

constexpr const char* kGrid = "stroke=\"#dddddd\"";

std::string Panel(const LinePlot& plot, double top) {
  double x_low = 0, x_high = 1, low = 0, high = 0;
  for (const PlotLine& line : plot.lines) {
    for (const double x : line.x) x_high = std::max(x_high, x);
    for (const double y : line.y) {
      low = std::min(low, y);
      high = std::max(high, y);
    }
  }
  const Scale x(x_low, x_high), y(low, high);
  const double bottom = top + kHeight - 60, up = top + 25;
  std::string svg = Text(kLeft, top + 14, "start", plot.title);
  for (const double tick : y.Ticks()) {
    const double at = y.At(tick, bottom, up);
    svg += Line(kLeft, at, kLeft + kPlot, at, kGrid);
    svg += Text(kLeft - 6, at + 4, "end", absl::StrFormat("%.6g", tick));
  }
  for (const double tick : x.Ticks()) {
    const double at = x.At(tick, kLeft, kLeft + kPlot);
    svg += Text(at, bottom + 15, "middle", absl::StrFormat("%.6g", tick));
  }
  svg += Text(kLeft + kPlot / 2, bottom + 31, "middle", plot.x_title);
  for (size_t i = 0; i < plot.lines.size(); ++i) {
    const PlotLine& line = plot.lines[i];
    svg += "<polyline points=\"";
    for (size_t k = 0; k < line.x.size(); ++k) {
      absl::StrAppendFormat(&svg, "%.1f,%.1f ",
                            x.At(line.x[k], kLeft, kLeft + kPlot),
                            y.At(line.y[k], bottom, up));
    }
    absl::StrAppend(&svg, "\" ", Style(i, line.dashed), "/>\n");
  }
  return svg;
}

}  // namespace

std::string RenderLines(const std::vector<LinePlot>& plots) {
  std::string svg;
  double top = 0;
  for (const LinePlot& plot : plots) {
    svg += Panel(plot, top);
    top += kHeight;
  }
  double legend = 30;
  for (size_t i = 0; !plots.empty() && i < plots[0].lines.size(); ++i) {
    const PlotLine& line = plots[0].lines[i];
    svg += Line(kLegend, legend - 4, kLegend + 25, legend - 4,
                Style(i, line.dashed));
    svg += Text(kLegend + 32, legend, "start", line.title);
    legend += 16;
  }
  return Document(std::max(top, legend), svg);
}

std::string RenderIntervals(const std::string& title,
                            const std::vector<PlotBar>& bars) {
  double low = 0, high = 0;
  for (const PlotBar& bar : bars) {
    low = std::min(low, bar.interval.low);
    high = std::max(high, bar.interval.high);
  }
  const Scale scale(low, high);
  const double left = kLabels, right = kWidth - 30;
  const double bottom = 35 + 18 * static_cast<double>(bars.size());
  std::string svg = Text(left, 16, "start", title);
  for (const double tick : scale.Ticks()) {
    const double at = scale.At(tick, left, right);
    svg += Line(at, 25, at, bottom, kGrid);
    svg += Text(at, bottom + 15, "middle", absl::StrFormat("%.6g", tick));
  }
  double y = 40;
  for (size_t i = 0; i < bars.size(); ++i, y += 18) {
    const Interval& interval = bars[i].interval;
    svg += Text(left - 8, y + 4, "end", bars[i].title);
    svg += Line(scale.At(interval.low, left, right), y,
                scale.At(interval.high, left, right), y,
                "stroke=\"#1f77b4\" stroke-width=\"2\"");
    absl::StrAppendFormat(
        &svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"#1f77b4\"/>\n",
        scale.At(interval.value, left, right), y);
  }
  return Document(bottom + 25, svg);
}

}  // namespace limpid::evaluate
