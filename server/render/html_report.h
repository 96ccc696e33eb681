// SPDX-License-Identifier: Apache-2.0
//
// An explanation as one HTML file that needs nothing else: no network, no other
// file. Texts may hold anything; nothing in them can become markup or script.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace limpid::render {

// What a layer looks like: one row [1, L] or a matrix [L, L].
struct LayerPanel {
  int64_t layer = 0;
  int64_t rows = 0, columns = 0;
  std::vector<float> values;  // row-major
  std::optional<double> reconstruction_error;
};

struct ReportCandidate {
  std::string piece;
  int64_t id = 0;
  double logit = 0, probability = 0;
};

struct Report {
  std::string title;
  // Name and value, for example {"method", "raw-attention"}.
  std::vector<std::pair<std::string, std::string>> facts;
  std::vector<ReportCandidate> predictions;
  // Text of each token, any bytes; empty for pictures.
  std::vector<std::string> tokens;
  // One per token, or per patch in row-major order.
  std::vector<float> attribution;
  // Rows and columns of the patches; 0 for text.
  int64_t grid_rows = 0, grid_columns = 0;
  std::optional<size_t> position;  // the explained token
  std::vector<LayerPanel> layers;
};

// The file's text (UTF-8). INVALID_ARGUMENT if sizes do not fit each other.
// Matrices are shown with at most 256 x 256 entries of 8 bits each, so that the
// file of a deep model stays small; the file says so.
absl::StatusOr<std::string> RenderHtmlReport(const Report& report);

// JSON that may stand in a script element: <, >, & and the two line separators
// of JavaScript as \u escapes.
std::string EscapeJsonForScript(const std::string& json);
// Text that may stand in an element or a quoted attribute.
std::string EscapeHtml(const std::string& text);

}  // namespace limpid::render
