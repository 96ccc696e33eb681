// SPDX-License-Identifier: Apache-2.0
//
// Explanations as pictures and reports: finds what server/render wants to know
// in a reply.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/explanation.h"
#include "server/input/image_decode.h"

namespace limpid::cli {

// Entries of a layer under one reduction over channels.
struct LayerReduction {
  std::string name;
  std::vector<float> values;  // row-major
};

// Attention of one layer, reduced to a row [1, L] or a matrix [L, L]: as the
// reply has it or, if it has every channel, by several reductions of which mean
// absolute values are the first.
struct LayerView {
  int32_t layer = 0;
  int64_t rows = 0, columns = 0;
  std::vector<LayerReduction> reductions;  // at least one

  const std::vector<float>& values() const { return reductions[0].values; }
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

// Model and method.
std::string TitleOf(const Explanation& explanation);

// The index of the explained token, if every token has its own value.
std::optional<size_t> ShownPosition(const Explanation& explanation,
                                    const AttributionView& view);

// The picture that was explained, for maps to be laid over.
struct Underlay {
  RgbImage image;
  double opacity = 0.6;  // of the map, 0 to 1
};

// The picture of an input; nothing for other inputs. `opacity` as it was
// written, "0" to "1".
std::optional<Underlay> UnderlayOf(const v1::Input& input,
                                   const std::optional<std::string>& opacity);

// The attributions as a PNG file: texts below each other, maps side by side and
// over the picture where there is one. At least one explanation, all of the
// same input.
absl::StatusOr<std::string> AttributionPng(
    std::span<const Explanation> explanations,
    const std::optional<Underlay>& underlay);

// The attribution as an SVG file.
absl::StatusOr<std::string> AttributionSvg(const Explanation& explanation);

// A layer's matrix, with tokens on its axes, as a PNG or SVG file.
absl::StatusOr<std::string> LayerPng(const Explanation& explanation,
                                     const LayerView& layer);
absl::StatusOr<std::string> LayerSvg(const Explanation& explanation,
                                     const LayerView& layer);

}  // namespace limpid::cli
