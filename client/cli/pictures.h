// SPDX-License-Identifier: Apache-2.0
//
// Explanations as pictures and reports: finds what server/render wants to know
// in a reply.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/explanation.h"

namespace limpid::cli {

// Attention of one layer, reduced to a row [1, L] or a matrix [L, L]; channels
// are averaged by their absolute values.
struct LayerView {
  int32_t layer = 0;
  int64_t rows = 0, columns = 0;
  std::vector<float> values;
};

// What is attributed: one text and value per token or unit of tokens, or the
// values of a grid of patches.
struct AttributionView {
  std::vector<std::string> labels;  // empty for patches
  std::vector<float> values;
  int64_t grid_rows = 0, grid_columns = 0;  // 0 for text
};

// INVALID_ARGUMENT if the reply has no attribution of that point that can be
// shown.
absl::StatusOr<AttributionView> ViewAttribution(const Explanation& explanation,
                                                int point = 0);

// In the order of the layers. `matrices`: whether matrices were asked for, not
// rows.
absl::StatusOr<std::vector<LayerView>> ViewLayers(
    const Explanation& explanation, bool matrices);

// The attribution as a PNG file.
absl::StatusOr<std::string> AttributionPng(const Explanation& explanation);

// A layer's matrix as a PNG file.
absl::StatusOr<std::string> LayerPng(const Explanation& explanation,
                                     const LayerView& layer);

// The report as an HTML file.
absl::StatusOr<std::string> ReportHtml(const Explanation& explanation,
                                       bool matrices);

}  // namespace limpid::cli
