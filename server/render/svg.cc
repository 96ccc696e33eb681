// SPDX-License-Identifier: Apache-2.0
#include "server/render/svg.h"

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/render/html_report.h"
#include "server/render/token_text.h"

namespace limpid::render {
namespace {

constexpr int kWidth = 720;
constexpr int kMargin = 16;
constexpr int kEm = 14;             // size of the text
constexpr double kAdvance = 0.602;  // of monospace fonts, in em
constexpr int kLine = 26;
constexpr int64_t kMaxCells = 128;  // per side
constexpr size_t kMaxTokens = 4096;

// Room of a text in a monospace font; wide characters take two places. What a
// viewer's font makes of it is fitted by textLength.
double RoomOf(const std::string& text) {
  int places = 0;
  for (const char32_t c : DecodeUtf8(text)) places += c >= 0x1100 ? 2 : 1;
  return places * kAdvance * kEm;
}

class Drawing {
 public:
  void Rect(double x, double y, double width, double height, Rgb color,
            const char* more = "") {
    absl::StrAppendFormat(
        &body_,
        "<rect x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"%.6g\" "
        "fill=\"%s\"%s/>\n",
        x, y, width, height, HexColor(color), more);
  }
  // `more` holds further attributes, starting with a blank.
  void Text(double x, double y, const std::string& text,
            const std::string& more = "") {
    absl::StrAppendFormat(&body_,
                          "<text x=\"%.6g\" y=\"%.6g\"%s "
                          "xml:space=\"preserve\">%s</text>\n",
                          x, y, more, EscapeHtml(SafeText(text)));
  }

  // Draws a caption and returns where it ends.
  double AddCaption(const Caption& caption) {
    double y = kMargin + 18;
    Text(kMargin, y, caption.title, " font-size=\"18\" font-weight=\"bold\"");
    for (const std::string& line : caption.lines) {
      y += 20;
      Text(kMargin, y, line, " fill=\"#444\"");
    }
    return y + 16;
  }

  void AddColorBar(double x, double y, const ValueRange& range) {
    constexpr int kSteps = 64, kBar = 256;
    for (int i = 0; i < kSteps; ++i) {
      Rect(x + i * kBar / kSteps, y, kBar / kSteps + 0.5, 10,
           ColorTable(range.scale)[i * 255 / (kSteps - 1)]);
    }
    Text(x, y + 26, absl::StrFormat("%.3g", range.low));
    Text(x + kBar, y + 26, absl::StrFormat("%.3g", range.high),
         " text-anchor=\"end\"");
  }

  std::string Finish(double width, double height) const {
    return absl::StrFormat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.6g %.6g\" "
        "width=\"%.6g\" height=\"%.6g\" font-family=\"ui-monospace, 'DejaVu "
        "Sans Mono', monospace\" font-size=\"%d\">\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n%s</svg>\n",
        width, height, width, height, kEm, body_);
  }

 private:
  std::string body_;
};

}  // namespace

absl::StatusOr<std::string> RenderAttributionSvg(
    const AttributionFigure& figure) {
  if (figure.tokens.size() != figure.values.size() || figure.tokens.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a picture needs one value per token: ", figure.tokens.size(),
        " tokens, ", figure.values.size(), " values"));
  }
  Drawing drawing;
  const double top = drawing.AddCaption(figure.caption);
  const ValueRange range = RangeOf(figure.values);
  const size_t count = std::min(figure.tokens.size(), kMaxTokens);
  double x = kMargin, y = top;
  for (size_t i = 0; i < count; ++i) {
    const std::string text = SafeText(figure.tokens[i]);
    const double room = std::min<double>(RoomOf(text), kWidth - 2 * kMargin);
    if (x > kMargin && x + room > kWidth - kMargin) {
      x = kMargin;
      y += kLine;
    }
    const Rgb color = range.Color(figure.values[i]);
    drawing.Rect(
        x, y, room, kLine - 4, color,
        figure.position == i ? " stroke=\"#000\" stroke-width=\"2\"" : "");
    drawing.Text(
        x, y + 16, text,
        absl::StrFormat(" textLength=\"%.6g\" "
                        "lengthAdjust=\"spacingAndGlyphs\" fill=\"%s\"",
                        room, HexColor(TextColorOn(color))));
    x += room + 1;
    if (!figure.tokens[i].empty() && figure.tokens[i].back() == '\n') {
      x = kMargin;
      y += kLine;
    }
  }
  y += kLine + 10;
  if (count < figure.tokens.size()) {
    drawing.Text(
        kMargin, y + kEm,
        absl::StrCat("and ", figure.tokens.size() - count, " more tokens"));
    y += kLine;
  }
  drawing.AddColorBar(kMargin, y, range);
  return drawing.Finish(kWidth, y + 40);
}

absl::StatusOr<std::string> RenderMatrixSvg(const MatrixFigure& figure,
                                            bool patches) {
  if (figure.rows <= 0 || figure.columns <= 0 ||
      figure.rows > std::numeric_limits<int64_t>::max() / figure.columns ||
      static_cast<uint64_t>(figure.rows * figure.columns) !=
          figure.values.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a matrix of ", figure.rows, " x ", figure.columns,
                     " can't have ", figure.values.size(), " values"));
  }
  const ReducedMatrix matrix =
      ReduceMatrix(figure.values, figure.rows, figure.columns, kMaxCells);
  const auto has_labels = [&](const std::vector<std::string>& labels,
                              int64_t count) {
    return !patches && matrix.factor == 1 && matrix.columns <= 40 &&
           labels.size() == static_cast<size_t>(count);
  };
  const bool row_labels = has_labels(figure.row_labels, matrix.rows);
  const bool column_labels = has_labels(figure.column_labels, matrix.columns);
  Drawing drawing;
  const double left = kMargin + (row_labels ? 120 : 0);
  const double top =
      drawing.AddCaption(figure.caption) + (column_labels ? 110 : 0);
  const double cell = std::min<double>(
      patches ? 64 : 24,
      (kWidth - kMargin - left) /
          static_cast<double>(std::max(matrix.rows, matrix.columns)));
  const ValueRange range = RangeOf(figure.values);
  for (int64_t i = 0; i < matrix.rows; ++i) {
    for (int64_t j = 0; j < matrix.columns; ++j) {
      const float value = matrix.values[i * matrix.columns + j];
      drawing.Rect(left + j * cell, top + i * cell, cell, cell,
                   range.Color(value), " shape-rendering=\"crispEdges\"");
    }
  }
  for (int64_t i = 0; row_labels && i < matrix.rows; ++i) {
    drawing.Text(left - 6, top + (i + 0.5) * cell + 4, figure.row_labels[i],
                 " text-anchor=\"end\" font-size=\"11\"");
  }
  for (int64_t j = 0; column_labels && j < matrix.columns; ++j) {
    const double x = left + (j + 0.5) * cell + 4, y = top - 6;
    drawing.Text(x, y, figure.column_labels[j],
                 absl::StrFormat(" font-size=\"11\" "
                                 "transform=\"rotate(-90 %.6g %.6g)\"",
                                 x, y));
  }
  const double bottom = top + static_cast<double>(matrix.rows) * cell + 16;
  drawing.AddColorBar(left, bottom, range);
  return drawing.Finish(kWidth, bottom + 40);
}

}  // namespace limpid::render
