// SPDX-License-Identifier: Apache-2.0
#include "client/cli/text_layout.h"

#include <locale.h>
#include <wchar.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/render/token_text.h"

namespace limpid::cli {
namespace {

// The C library knows the widths of all characters, whatever locale the user
// has, in C.UTF-8, which Debian always has.
int WidthOf(char32_t c) {
  static const locale_t unicode =
      newlocale(LC_CTYPE_MASK, "C.UTF-8", locale_t{});
  if (unicode == locale_t{}) return 1;
  const locale_t before = uselocale(unicode);
  const int width = wcwidth(static_cast<wchar_t>(c));
  uselocale(before);
  return width < 0 ? 1 : width;  // unassigned: shown as some box
}

bool IsRightToLeft(char32_t c) {
  // Blocks that Unicode reserves for scripts of that direction (UAX #9: default
  // values of Bidi_Class R and AL).
  return (c >= 0x0590 && c <= 0x08FF) || (c >= 0xFB1D && c <= 0xFDFF) ||
         (c >= 0xFE70 && c <= 0xFEFF) || (c >= 0x10800 && c <= 0x10FFF) ||
         (c >= 0x1E800 && c <= 0x1EFFF);
}

}  // namespace

int DisplayWidth(absl::string_view text) {
  int width = 0;
  for (const char32_t c : render::DecodeUtf8(text)) width += WidthOf(c);
  return width;
}

std::string FitToWidth(absl::string_view text, int width) {
  std::string out;
  int used = 0;
  for (const char32_t c : render::DecodeUtf8(text)) {
    const int more = WidthOf(c);
    if (used + more > width) break;
    render::AppendUtf8(c, out);
    used += more;
  }
  return out + std::string(std::max(0, width - used), ' ');
}

std::vector<std::string> WrapText(absl::string_view text, int width) {
  if (width <= 0) return {std::string(text)};
  std::vector<std::string> lines(1);
  int used = 0;
  for (const absl::string_view word : absl::StrSplit(text, ' ')) {
    const int more = DisplayWidth(word);
    if (used > 0 && used + 1 + more > width) {
      lines.emplace_back();
      used = 0;
    } else if (used > 0) {
      lines.back() += ' ';
      ++used;
    }
    for (const char32_t c : render::DecodeUtf8(word)) {
      const int columns = WidthOf(c);
      if (used + columns > width && used > 0) {
        lines.emplace_back();
        used = 0;
      }
      render::AppendUtf8(c, lines.back());
      used += columns;
    }
  }
  return lines;
}

std::string WrapHelp(absl::string_view help, int width) {
  std::string out;
  for (const absl::string_view line : absl::StrSplit(help, '\n')) {
    if (DisplayWidth(line) <= width) {
      absl::StrAppend(&out, line, "\n");
      continue;
    }
    const size_t margin = std::min(line.find_first_not_of(' '), line.size());
    // Two blanks end the flag.
    const size_t gap = line.find("  ", margin);
    const size_t text =
        gap == absl::string_view::npos ? gap : line.find_first_not_of(' ', gap);
    size_t indent = margin + 2;
    std::string first(line.substr(0, margin));
    absl::string_view rest = line.substr(margin);
    if (text != absl::string_view::npos) {
      first = std::string(line.substr(0, text));
      rest = line.substr(text);
      indent = text;
      if (static_cast<int>(text) > width / 2) {
        absl::StrAppend(&out, line.substr(0, gap), "\n");
        indent = margin + 4;
        first.assign(indent, ' ');
      }
    } else if (margin > 8) {  // goes on from the line above
      indent = margin;
    }
    const int room = std::max(20, width - static_cast<int>(indent));
    for (const std::string& part : WrapText(rest, room)) {
      absl::StrAppend(&out, first, part, "\n");
      first.assign(indent, ' ');
    }
  }
  if (!out.empty()) out.pop_back();  // the last line had no end of its own
  return out;
}

std::string Isolated(absl::string_view text) {
  for (const char32_t c : render::DecodeUtf8(text)) {
    // U+2068 FIRST STRONG ISOLATE ... U+2069 POP DIRECTIONAL ISOLATE.
    if (IsRightToLeft(c)) {
      return absl::StrCat("\xE2\x81\xA8", text, "\xE2\x81\xA9");
    }
  }
  return std::string(text);
}

}  // namespace limpid::cli
