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

// A layer's entries under one reduction over channels.
struct ReducedValues {
  std::string name;           // for example "mean-abs"
  std::vector<float> values;  // [rows, columns], row-major
};

// What a layer looks like: one row [1, L] or a matrix [L, L], perhaps under
// several reductions.
struct LayerPanel {
  int64_t layer = 0;
  int64_t rows = 0, columns = 0;
  std::vector<ReducedValues> reductions;  // at least one
  std::optional<double> reconstruction_error;
};

struct ReportCandidate {
  std::string piece;
  int64_t id = 0;
  double logit = 0, probability = 0;
};

// Probability of the target against the share of tokens deleted or inserted.
struct ReportCurve {
  std::vector<float> fraction, score;  // of the same size
  double area = 0, random_area = 0;
};

// One explanation.
struct ReportRun {
  std::string name;  // for example model and method
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
  std::optional<ReportCurve> deletion, insertion;
  std::vector<LayerPanel> layers;
};

// The values of all explanations on units that they have in common.
struct ReportComparison {
  std::string unit;                        // "token", "word" or "patch"
  std::vector<std::string> labels;         // any bytes; empty for patches
  std::vector<std::vector<float>> values;  // [run][unit]
};

// The picture that was explained, for the map to be laid over.
struct ReportPicture {
  std::string png;       // a PNG file
  double opacity = 0.6;  // of the map at first, 0 to 1
};

struct Report {
  std::string title;
  std::vector<ReportRun> runs;  // at least one
  std::optional<ReportComparison> comparison;
  std::optional<ReportPicture> picture;
};

// The file's text (UTF-8). INVALID_ARGUMENT if sizes do not fit each other.
// Entries of matrices are kept in 8 bits, and matrices are reduced as
// RenderMatrixPng does so that all together take about 12 MB; the file says so.
absl::StatusOr<std::string> RenderHtmlReport(const Report& report);

// JSON that may stand in a script element: <, >, & and the two line separators
// of JavaScript as \u escapes.
std::string EscapeJsonForScript(const std::string& json);
// Text that may stand in an element or a quoted attribute.
std::string EscapeHtml(const std::string& text);

}  // namespace limpid::render
