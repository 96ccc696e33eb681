// SPDX-License-Identifier: Apache-2.0
//
// Pictures of matrices and patch grids.
#include "server/render/heatmap_png.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/render/token_text.h"

namespace limpid::render {
namespace {

constexpr int kMargin = 24;
constexpr int kDot = 2;
constexpr int kPlot = 760;       // pixels that a plot aims at per side
constexpr int kMaxCells = 1024;  // per side
constexpr int kLabelCell = 18;   // smallest cell that a label fits
constexpr int kLabelRoom = 150;  // pixels for labels on an axis

absl::Status CheckSizes(const MatrixFigure& figure) {
  const int64_t rows = figure.rows, columns = figure.columns;
  if (rows <= 0 || columns <= 0 ||
      rows > std::numeric_limits<int64_t>::max() / columns ||
      static_cast<uint64_t>(rows * columns) != figure.values.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a matrix of ", rows, " x ", columns, " can't have ",
                     figure.values.size(), " values"));
  }
  return absl::OkStatus();
}

// Whether `a` says more about a block than `b`; NaN must not get lost.
bool StandsOut(float a, float b) {
  if (std::isnan(b)) return false;
  return std::isnan(a) || std::abs(a) > std::abs(b);
}

struct PlotStyle {
  int max_cell;
  bool labels;
};

absl::StatusOr<std::string> RenderPlot(const MatrixFigure& figure,
                                       PlotStyle style) {
  if (absl::Status status = CheckSizes(figure); !status.ok()) return status;
  const ReducedMatrix matrix =
      ReduceMatrix(figure.values, figure.rows, figure.columns, kMaxCells);
  const int rows = static_cast<int>(matrix.rows);
  const int columns = static_cast<int>(matrix.columns);
  const int cell =
      std::clamp(kPlot / std::max(rows, columns), 1, style.max_cell);
  const bool fits = style.labels && cell >= kLabelCell && matrix.factor == 1;
  const bool row_labels =
      fits && figure.row_labels.size() == static_cast<size_t>(rows);
  const bool column_labels =
      fits && figure.column_labels.size() == static_cast<size_t>(columns);

  const int left = kMargin + (row_labels ? kLabelRoom : 0);
  const int width = std::max(kFigureWidth, left + columns * cell + kMargin);
  const CaptionLayout caption(figure.caption, width - 2 * kMargin);
  const int top =
      kMargin + caption.height() + 14 + (column_labels ? kLabelRoom : 0);
  const int bar_top = top + rows * cell + 20;
  Canvas canvas(width, bar_top + Canvas::kBarHeight + kMargin);
  caption.Draw(canvas, kMargin, kMargin);

  const ValueRange range = RangeOf(figure.values);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      canvas.FillRect(
          left + j * cell, top + i * cell, cell, cell,
          range.Color(matrix.values[static_cast<size_t>(i) * columns + j]));
    }
  }
  canvas.DrawFrame(left - 1, top - 1, columns * cell + 2, rows * cell + 2, 1,
                   {120, 120, 120});
  const int inset = (cell - TextHeight(kDot)) / 2 + kDot;
  for (int i = 0; row_labels && i < rows; ++i) {
    const std::string text =
        FitText(SafeText(figure.row_labels[i]), kDot, kLabelRoom - 8);
    canvas.DrawText(left - 8 - TextWidth(text, kDot), top + i * cell + inset,
                    text, kDot, kBlack);
  }
  for (int j = 0; column_labels && j < columns; ++j) {
    const std::string text =
        FitText(SafeText(figure.column_labels[j]), kDot, kLabelRoom - 8);
    canvas.DrawTextUp(left + j * cell + inset, top - 8, text, kDot, kBlack);
  }
  canvas.DrawColorBar(left, bar_top, 400, range);
  return canvas.EncodePng();
}

}  // namespace

ReducedMatrix ReduceMatrix(std::span<const float> values, int64_t rows,
                           int64_t columns, int64_t limit) {
  ReducedMatrix out;
  const int64_t longest = std::max(rows, columns);
  out.factor = std::max<int64_t>(1, (longest + limit - 1) / limit);
  if (out.factor == 1) {
    out.rows = rows;
    out.columns = columns;
    out.values.assign(values.begin(), values.end());
    return out;
  }
  out.rows = (rows + out.factor - 1) / out.factor;
  out.columns = (columns + out.factor - 1) / out.factor;
  out.values.assign(static_cast<size_t>(out.rows * out.columns), 0.0f);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const float value = values[static_cast<size_t>(i * columns + j)];
      float& cell = out.values[static_cast<size_t>(
          (i / out.factor) * out.columns + j / out.factor)];
      if (StandsOut(value, cell)) cell = value;
    }
  }
  return out;
}

absl::StatusOr<std::string> RenderMatrixPng(const MatrixFigure& figure) {
  return RenderPlot(figure, {.max_cell = 36, .labels = true});
}

absl::StatusOr<std::string> RenderGridPng(const MatrixFigure& figure) {
  return RenderPlot(figure, {.max_cell = 96, .labels = false});
}

}  // namespace limpid::render
