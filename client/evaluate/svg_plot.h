// SPDX-License-Identifier: Apache-2.0
//
// Plots as SVG files: curves, and figures with their intervals. Pure.
#pragma once

#include <string>
#include <vector>

#include "client/evaluate/statistics.h"

namespace limpid::evaluate {

struct PlotLine {
  std::string title;
  std::vector<double> x, y;
  bool dashed = false;
};

struct LinePlot {
  std::string title, x_title;
  std::vector<PlotLine> lines;
};

// The plots above each other with one legend; all have the same lines.
std::string RenderLines(const std::vector<LinePlot>& plots);

struct PlotBar {
  std::string title;
  Interval interval;
};

// A dot and a whisker for each, below each other.
std::string RenderIntervals(const std::string& title,
                            const std::vector<PlotBar>& bars);

}  // namespace limpid::evaluate
