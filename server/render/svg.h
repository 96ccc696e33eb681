// SPDX-License-Identifier: Apache-2.0
//
// Explanations as SVG files, for papers: text stays text, everything else
// scales. The figures are those of heatmap_png.h, and so are the errors. Pure
// and thread-safe.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/render/heatmap_png.h"

namespace limpid::render {

// A text whose tokens are coloured by their attribution.
absl::StatusOr<std::string> RenderAttributionSvg(
    const AttributionFigure& figure);

// A matrix or, with `patches`, a grid without labels. More than 128 rows or
// columns are reduced as RenderMatrixPng does.
absl::StatusOr<std::string> RenderMatrixSvg(const MatrixFigure& figure,
                                            bool patches);

}  // namespace limpid::render
