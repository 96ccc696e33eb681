// SPDX-License-Identifier: Apache-2.0
//
// Explanations as PNG files: a text with coloured tokens, a matrix, a grid of
// image patches. All functions are pure and thread-safe.
//
// INVALID_ARGUMENT: sizes that do not fit each other, or an empty picture.
// Values that are NaN or infinite are drawn in grey.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/render/canvas.h"
#include "server/render/colormap.h"

namespace limpid::render {

// What stands above every picture.
struct Caption {
  std::string title;               // for example model and method
  std::vector<std::string> lines;  // for example prediction and target
};

// A text whose tokens are coloured by their attribution.
struct AttributionFigure {
  Caption caption;
  std::vector<std::string> tokens;  // text of each token, any bytes
  std::vector<float> values;        // one per token
  std::optional<size_t> position;   // the explained token gets a frame
};

// [rows, columns] numbers, row-major.
struct MatrixFigure {
  Caption caption;
  int64_t rows = 0, columns = 0;
  std::span<const float> values;
  // Text of the rows and columns, or empty; drawn where they fit.
  std::vector<std::string> row_labels, column_labels;
};

// Pictures are about this wide in pixels.
inline constexpr int kFigureWidth = 960;

// Very long texts are cut, and the picture says so.
absl::StatusOr<std::string> RenderAttributionPng(
    const AttributionFigure& figure);

// Several figures below each other. INVALID_ARGUMENT without any.
absl::StatusOr<std::string> RenderAttributionsPng(
    std::span<const AttributionFigure> figures);

// Matrices with more rows or columns than pixels are reduced: a pixel shows the
// entry with the largest absolute value among those that it stands for.
absl::StatusOr<std::string> RenderMatrixPng(const MatrixFigure& figure);

// A grid of patches as squares without labels; labels are ignored.
absl::StatusOr<std::string> RenderGridPng(const MatrixFigure& figure);

// Reduces a matrix to at most `limit` rows and columns as RenderMatrixPng does;
// block of `factor` x `factor` entries become one.
struct ReducedMatrix {
  int64_t rows = 0, columns = 0, factor = 1;
  std::vector<float> values;
};
ReducedMatrix ReduceMatrix(std::span<const float> values, int64_t rows,
                           int64_t columns, int64_t limit);

// Lays out a caption: its lines wrapped to `width` pixels.
class CaptionLayout {
 public:
  CaptionLayout(const Caption& caption, int width);
  int height() const;
  void Draw(Canvas& canvas, int x, int y) const;

 private:
  std::vector<std::string> title_, lines_;
};

}  // namespace limpid::render
