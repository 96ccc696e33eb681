// SPDX-License-Identifier: Apache-2.0
#include "server/render/overlay_png.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/render/token_text.h"

namespace limpid::render {
namespace {

constexpr int kMargin = 24;
constexpr int kGap = 16;
constexpr int kDot = 2;
constexpr int kMinPanel = 200;  // pixels of the longer side

bool Fits(int64_t rows, int64_t columns, size_t count, size_t per_cell) {
  return rows > 0 && columns > 0 &&
         rows <= std::numeric_limits<int32_t>::max() / columns &&
         static_cast<size_t>(rows * columns) * per_cell == count;
}

absl::Status CheckFigure(const OverlayFigure& figure) {
  if (!Fits(figure.height, figure.width, figure.pixels.size(), 3)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a picture of ", figure.width, " x ", figure.height,
                     " can't have ", figure.pixels.size(), " bytes"));
  }
  if (figure.maps.empty()) {
    return absl::InvalidArgumentError("no map to lay over the picture");
  }
  for (const OverlayMap& map : figure.maps) {
    if (!Fits(map.rows, map.columns, map.values.size(), 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("a map of ", map.rows, " x ", map.columns,
                       " can't have ", map.values.size(), " values"));
    }
  }
  return absl::OkStatus();
}

uint8_t Mix(uint8_t under, uint8_t over, double opacity) {
  return static_cast<uint8_t>(
      std::lround(under + (static_cast<double>(over) - under) * opacity));
}

// The place and size of one panel, and what is drawn there.
struct Panel {
  int width, height;

  // The source pixel or patch that a panel's pixel shows.
  int64_t SourceX(int x, int64_t count) const { return x * count / width; }
  int64_t SourceY(int y, int64_t count) const { return y * count / height; }
};

Rgb PixelOf(const OverlayFigure& figure, const Panel& panel, int x, int y) {
  const size_t at =
      3 * static_cast<size_t>(panel.SourceY(y, figure.height) * figure.width +
                              panel.SourceX(x, figure.width));
  return {figure.pixels[at], figure.pixels[at + 1], figure.pixels[at + 2]};
}

// Lines along the borders between patches inside and outside of the contour,
// white with black beside it so that they show on every colour.
void DrawContour(Canvas& canvas, int left, int top, const Panel& panel,
                 const OverlayMap& map, float level) {
  const auto inside = [&](int64_t row, int64_t column) {
    return row >= 0 && column >= 0 && row < map.rows && column < map.columns &&
           map.values[static_cast<size_t>(row * map.columns + column)] >= level;
  };
  const auto edge_x = [&](int64_t column) {
    return left + static_cast<int>(column * panel.width / map.columns);
  };
  const auto edge_y = [&](int64_t row) {
    return top + static_cast<int>(row * panel.height / map.rows);
  };
  for (const bool dark : {true, false}) {
    const int half = dark ? 2 : 1;
    const Rgb color = dark ? kBlack : kWhite;
    for (int64_t row = 0; row <= map.rows; ++row) {
      for (int64_t column = 0; column <= map.columns; ++column) {
        const bool here = inside(row, column);
        const int x = edge_x(column), y = edge_y(row);
        if (here != inside(row, column - 1) && row < map.rows) {
          canvas.FillRect(x - half, y - half, 2 * half,
                          edge_y(row + 1) - y + 2 * half, color);
        }
        if (here != inside(row - 1, column) && column < map.columns) {
          canvas.FillRect(x - half, y - half, edge_x(column + 1) - x + 2 * half,
                          2 * half, color);
        }
      }
    }
  }
}

void DrawPicture(Canvas& canvas, int left, int top, const Panel& panel,
                 const OverlayFigure& figure) {
  for (int y = 0; y < panel.height; ++y) {
    for (int x = 0; x < panel.width; ++x) {
      canvas.SetPixel(left + x, top + y, PixelOf(figure, panel, x, y));
    }
  }
}

void DrawMap(Canvas& canvas, int left, int top, const Panel& panel,
             const OverlayFigure& figure, const OverlayMap& map) {
  const ValueRange range = RangeOf(map.values);
  for (int y = 0; y < panel.height; ++y) {
    const int64_t row = panel.SourceY(y, map.rows);
    for (int x = 0; x < panel.width; ++x) {
      const int64_t column = panel.SourceX(x, map.columns);
      const Rgb over = range.Color(
          map.values[static_cast<size_t>(row * map.columns + column)]);
      const Rgb under = PixelOf(figure, panel, x, y);
      canvas.SetPixel(left + x, top + y,
                      {Mix(under.r, over.r, figure.opacity),
                       Mix(under.g, over.g, figure.opacity),
                       Mix(under.b, over.b, figure.opacity)});
    }
  }
  const float level = ContourLevel(map.values, figure.contour_quantile);
  DrawContour(canvas, left, top, panel, map, level);
  canvas.DrawColorBar(left, top + panel.height + 8, panel.width, range);
}

}  // namespace

float ContourLevel(std::span<const float> values, double quantile) {
  constexpr float kNothing = std::numeric_limits<float>::infinity();
  std::vector<float> sorted;
  for (const float value : values) {
    if (std::isfinite(value)) sorted.push_back(value);
  }
  std::sort(sorted.begin(), sorted.end());
  if (sorted.empty() || sorted.front() == sorted.back()) return kNothing;
  const size_t index = static_cast<size_t>(
      std::ceil(quantile * static_cast<double>(sorted.size())));
  return index < sorted.size() ? sorted[index] : kNothing;
}

absl::StatusOr<std::string> RenderOverlayPng(const OverlayFigure& figure) {
  if (absl::Status status = CheckFigure(figure); !status.ok()) return status;
  const int panels = 1 + static_cast<int>(figure.maps.size());
  const int per_row = std::min(panels, 3);
  const int room =
      (kFigureWidth - 2 * kMargin - (per_row - 1) * kGap) / per_row;
  // The longer side takes the room; a very flat picture keeps a pixel of
  // height.
  const int64_t longer = std::max(figure.width, figure.height);
  const Panel panel{
      .width = std::max<int>(1, static_cast<int>(room * figure.width / longer)),
      .height =
          std::max<int>(1, static_cast<int>(room * figure.height / longer))};
  static_assert((kFigureWidth - 2 * kMargin - 2 * kGap) / 3 >= kMinPanel);

  const int title = TextHeight(kDot) + 6;
  const int row_height = title + panel.height + 8 + Canvas::kBarHeight + kGap;
  const int rows = (panels + per_row - 1) / per_row;
  const CaptionLayout caption(figure.caption, kFigureWidth - 2 * kMargin);
  const int top = kMargin + caption.height() + 14;
  Canvas canvas(kFigureWidth, top + rows * row_height + kMargin);
  caption.Draw(canvas, kMargin, kMargin);
  for (int i = 0; i < panels; ++i) {
    const int left = kMargin + (i % per_row) * (room + kGap);
    const int y = top + (i / per_row) * row_height;
    const std::string name =
        i == 0 ? "the picture" : SafeText(figure.maps[i - 1].title);
    canvas.DrawText(left, y, FitText(name, kDot, room), kDot, kBlack);
    if (i == 0) {
      DrawPicture(canvas, left, y + title, panel, figure);
    } else {
      DrawMap(canvas, left, y + title, panel, figure, figure.maps[i - 1]);
    }
  }
  return canvas.EncodePng();
}

}  // namespace limpid::render
