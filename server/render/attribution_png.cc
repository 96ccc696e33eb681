// SPDX-License-Identifier: Apache-2.0
//
// The picture of a text with coloured tokens, and captions.
#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/render/font.h"
#include "server/render/heatmap_png.h"
#include "server/render/token_text.h"

namespace limpid::render {
namespace {

constexpr int kMargin = 24;
constexpr int kDot = 2;  // of all text but the title's
constexpr int kTitleDot = 3;
constexpr int kLineGap = 6;
constexpr int kPadding = 5;  // between a token's text and its box
constexpr int kBoxGap = 2;   // between boxes
constexpr size_t kMaxTokens = 4096;
constexpr size_t kMaxCaptionLines = 12;

std::vector<std::string> Wrap(absl::string_view text, int dot, int width) {
  const size_t room =
      static_cast<size_t>(std::max(1, width / (kGlyphAdvance * dot)));
  std::vector<std::string> lines;
  std::string line;
  size_t used = 0;
  for (const char32_t c : DecodeUtf8(SafeText(text))) {
    if (used == room) {
      lines.push_back(line);
      line.clear();
      used = 0;
    }
    AppendUtf8(c, line);
    ++used;
  }
  if (!line.empty()) lines.push_back(line);
  return lines;
}

struct Box {
  int x, y, width;
  std::string text;
};

// Where each token goes when the lines are `width` pixels long; y counts from
// the first line.
std::vector<Box> PlaceTokens(const std::vector<std::string>& tokens,
                             size_t count, int width) {
  constexpr int kBoxHeight = kGlyphHeight * kDot + 2 * kPadding;
  std::vector<Box> boxes;
  boxes.reserve(count);
  int x = 0, y = 0;
  for (size_t i = 0; i < count; ++i) {
    Box box;
    box.text = FitText(SafeText(tokens[i]), kDot, width - 2 * kPadding);
    box.width = TextWidth(box.text, kDot) + 2 * kPadding;
    if (x > 0 && x + box.width > width) {
      x = 0;
      y += kBoxHeight + kLineGap;
    }
    box.x = x;
    box.y = y;
    x += box.width + kBoxGap;
    if (!tokens[i].empty() && tokens[i].back() == '\n') {
      x = 0;
      y += kBoxHeight + kLineGap;
    }
    boxes.push_back(std::move(box));
  }
  return boxes;
}

absl::StatusOr<Canvas> DrawAttribution(const AttributionFigure& figure) {
  if (figure.tokens.size() != figure.values.size() || figure.tokens.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a picture needs one value per token: ", figure.tokens.size(),
        " tokens, ", figure.values.size(), " values"));
  }
  constexpr int kInner = kFigureWidth - 2 * kMargin;
  constexpr int kBoxHeight = kGlyphHeight * kDot + 2 * kPadding;
  const size_t count = std::min(figure.tokens.size(), kMaxTokens);
  const CaptionLayout caption(figure.caption, kInner);
  const std::vector<Box> boxes = PlaceTokens(figure.tokens, count, kInner);
  const std::string rest =
      count < figure.tokens.size()
          ? absl::StrCat("and ", figure.tokens.size() - count, " more tokens")
          : "";

  const int text_top = kMargin + caption.height() + 14;
  const int rest_top = text_top + boxes.back().y + kBoxHeight + 10;
  const int bar_top = rest_top + (rest.empty() ? 8 : TextHeight(kDot) + 18);
  Canvas canvas(kFigureWidth, bar_top + Canvas::kBarHeight + kMargin);
  caption.Draw(canvas, kMargin, kMargin);

  const ValueRange range = RangeOf(figure.values);
  for (size_t i = 0; i < count; ++i) {
    const Box& box = boxes[i];
    const Rgb color = range.Color(figure.values[i]);
    const int x = kMargin + box.x, y = text_top + box.y;
    canvas.FillRect(x, y, box.width, kBoxHeight, color);
    if (figure.position == i) {
      canvas.DrawFrame(x - 1, y - 1, box.width + 2, kBoxHeight + 2, 2, kBlack);
    }
    canvas.DrawText(x + kPadding, y + kPadding + kDot, box.text, kDot,
                    TextColorOn(color));
  }
  canvas.DrawText(kMargin, rest_top, rest, kDot, {70, 70, 70});
  canvas.DrawColorBar(kMargin, bar_top, 400, range);
  return canvas;
}

}  // namespace

CaptionLayout::CaptionLayout(const Caption& caption, int width)
    : title_(Wrap(caption.title, kTitleDot, width)) {
  for (const std::string& text : caption.lines) {
    for (std::string& line : Wrap(text, kDot, width)) {
      if (lines_.size() < kMaxCaptionLines) lines_.push_back(std::move(line));
    }
  }
}

int CaptionLayout::height() const {
  return static_cast<int>(title_.size()) * (TextHeight(kTitleDot) + kLineGap) +
         static_cast<int>(lines_.size()) * (TextHeight(kDot) + kLineGap);
}

void CaptionLayout::Draw(Canvas& canvas, int x, int y) const {
  for (const std::string& line : title_) {
    canvas.DrawText(x, y, line, kTitleDot, kBlack);
    y += TextHeight(kTitleDot) + kLineGap;
  }
  for (const std::string& line : lines_) {
    canvas.DrawText(x, y, line, kDot, {70, 70, 70});
    y += TextHeight(kDot) + kLineGap;
  }
}

absl::StatusOr<std::string> RenderAttributionPng(
    const AttributionFigure& figure) {
  return RenderAttributionsPng({&figure, 1});
}

absl::StatusOr<std::string> RenderAttributionsPng(
    std::span<const AttributionFigure> figures) {
  std::vector<Canvas> parts;
  int height = 0;
  for (const AttributionFigure& figure : figures) {
    absl::StatusOr<Canvas> part = DrawAttribution(figure);
    if (!part.ok()) return part.status();
    height += part->height();
    parts.push_back(*std::move(part));
  }
  if (parts.empty()) return absl::InvalidArgumentError("no figure to draw");
  if (parts.size() == 1) return parts.front().EncodePng();
  Canvas all(kFigureWidth, height);
  int y = 0;
  for (const Canvas& part : parts) {
    all.DrawCanvas(0, y, part);
    y += part.height();
  }
  return all.EncodePng();
}

}  // namespace limpid::render
