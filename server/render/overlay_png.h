// SPDX-License-Identifier: Apache-2.0
//
// Maps over the picture that they explain, side by side with it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/render/heatmap_png.h"

namespace limpid::render {

// A grid of patches [rows, columns], row-major. The map is stretched over the
// whole picture: of a model that crops, say so in the caption.
struct OverlayMap {
  std::string title;
  int64_t rows = 0, columns = 0;
  std::span<const float> values;
};

struct OverlayFigure {
  Caption caption;
  int64_t width = 0, height = 0;    // of the picture
  std::span<const uint8_t> pixels;  // [height, width, 3] RGB
  std::vector<OverlayMap> maps;     // at least one
  double opacity = 0.6;             // of the maps, 0 to 1
  // The patches at or above this quantile of a map are framed; 1 for none.
  double contour_quantile = 0.9;
};

// The picture, then each map over it, in rows that fit kFigureWidth; below each
// map its colour bar. INVALID_ARGUMENT: sizes that do not fit. Pure and
// thread-safe.
absl::StatusOr<std::string> RenderOverlayPng(const OverlayFigure& figure);

// The least value among the patches that are framed: at least a share of
// `quantile` of the finite values lies below it. Infinity if there are none or
// all are equal.
float ContourLevel(std::span<const float> values, double quantile);

}  // namespace limpid::render
