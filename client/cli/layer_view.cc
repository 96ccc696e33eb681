// SPDX-License-Identifier: Apache-2.0
#include "client/cli/layer_view.h"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/pictures.h"
#include "client/cli/text_layout.h"
#include "server/render/heatmap_png.h"

namespace limpid::cli {
namespace {

constexpr int kLabelColumns = 10;  // "layer  12 "
constexpr int kMaxCellColumns = 8;

std::vector<std::string> TokenTexts(const Explanation& explanation) {
  std::vector<std::string> texts;
  for (const v1::Token& token : explanation.header.tokens()) {
    texts.push_back(Safe(token.piece_bytes().empty() ? token.piece()
                                                     : token.piece_bytes()));
  }
  return texts;
}

// The row that is shown: that of the explained position, which a matrix has
// among its rows unless they were averaged over blocks.
std::span<const float> RowOf(const LayerView& layer, int64_t position) {
  const int64_t row = std::clamp<int64_t>(position, 0, layer.rows - 1);
  return std::span(layer.values())
      .subspan(static_cast<size_t>(row * layer.columns),
               static_cast<size_t>(layer.columns));
}

void PrintTableRow(Terminal& terminal, const LayerView& layer,
                   std::span<const float> row) {
  terminal.out << layer.layer;
  for (const float value : row) {
    terminal.out << absl::StreamFormat("\t%.3g", value);
  }
  terminal.out << "\n";
}

void PrintCells(Terminal& terminal, const LayerView& layer,
                std::span<const float> row,
                const std::vector<std::string>& texts) {
  const int room = std::max(20, terminal.columns - kLabelColumns);
  const render::ReducedMatrix cells =
      render::ReduceMatrix(row, 1, static_cast<int64_t>(row.size()), room);
  const int width =
      std::clamp(room / static_cast<int>(cells.columns), 1, kMaxCellColumns);
  // A single column holds no text that could be read.
  const bool named =
      width > 1 && cells.factor == 1 && texts.size() == row.size();
  const render::ValueRange range = render::RangeOf(row);
  terminal.out << absl::StreamFormat("layer %3d ", layer.layer);
  for (int64_t i = 0; i < cells.columns; ++i) {
    const std::string text = FitToWidth(named ? texts[i] : "", width);
    terminal.out << Colored(terminal.color, range.Color(cells.values[i]),
                            Isolated(text));
  }
  terminal.out << "\n";
}

}  // namespace

void PrintLayers(Terminal& terminal, const Explanation& explanation,
                 bool matrices) {
  const absl::StatusOr<std::vector<LayerView>> layers =
      ViewLayers(explanation, matrices);
  if (!layers.ok() || layers->empty()) {
    terminal.out << "the reply has no attention to show by layers\n";
    return;
  }
  const std::vector<std::string> texts = TokenTexts(explanation);
  if (terminal.color == ColorMode::kNone) {
    terminal.out << "layer";
    for (int64_t i = 0; i < layers->front().columns; ++i) {
      terminal.out << "\t" << i;
    }
    terminal.out << "\n";
  }
  for (const LayerView& layer : *layers) {
    const std::span<const float> row =
        RowOf(layer, explanation.header.position());
    if (terminal.color == ColorMode::kNone) {
      PrintTableRow(terminal, layer, row);
    } else {
      PrintCells(terminal, layer, row, texts);
    }
  }
  terminal.out << "\n";
}

}  // namespace limpid::cli
