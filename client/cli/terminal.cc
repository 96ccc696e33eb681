// SPDX-License-Identifier: Apache-2.0
#include "client/cli/terminal.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/render/token_text.h"

namespace limpid::cli {

ColorMode ChooseColor(bool is_terminal, const GetEnv& get_env) {
  const auto read = [&get_env](const char* name) {
    const char* value = get_env(name);
    return std::string(value == nullptr ? "" : value);
  };
  const std::string term = read("TERM"), depth = read("COLORTERM");
  if (!is_terminal || !read("NO_COLOR").empty() || term.empty() ||
      term == "dumb") {
    return ColorMode::kNone;
  }
  return depth == "truecolor" || depth == "24bit" ? ColorMode::kTrueColor
                                                  : ColorMode::k256;
}

int NearestOf256(render::Rgb color) {
  // xterm's cube of 6 x 6 x 6 colours from 16 on and 24 greys from 232 on.
  constexpr std::array<int, 6> kLevels = {0, 95, 135, 175, 215, 255};
  int best = 16, best_distance = std::numeric_limits<int>::max();
  const auto consider = [&](int index, int r, int g, int b) {
    const int dr = r - color.r, dg = g - color.g, db = b - color.b;
    const int distance = dr * dr + dg * dg + db * db;
    if (distance < best_distance) {
      best = index;
      best_distance = distance;
    }
  };
  for (int i = 0; i < 216; ++i) {
    consider(16 + i, kLevels[i / 36], kLevels[i / 6 % 6], kLevels[i % 6]);
  }
  for (int i = 0; i < 24; ++i) {
    consider(232 + i, 8 + 10 * i, 8 + 10 * i, 8 + 10 * i);
  }
  return best;
}

std::string Colored(ColorMode mode, render::Rgb background,
                    absl::string_view text) {
  const bool dark_text = render::TextColorOn(background) == render::kBlack;
  switch (mode) {
    case ColorMode::kNone:
      return std::string(text);
    case ColorMode::k256:
      return absl::StrCat("\x1b[48;5;", NearestOf256(background), ";38;5;",
                          dark_text ? 16 : 231, "m", text, "\x1b[0m");
    case ColorMode::kTrueColor:
      return absl::StrCat("\x1b[48;2;", int{background.r}, ";",
                          int{background.g}, ";", int{background.b}, ";38;5;",
                          dark_text ? 16 : 231, "m", text, "\x1b[0m");
  }
  return std::string(text);
}

std::string FormatProgress(int64_t done, int64_t total, const std::string& unit,
                           double seconds, int columns) {
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  std::string text = absl::StrCat(Safe(unit.substr(0, 20)), " ", done);
  if (total > 0) absl::StrAppend(&text, "/", total);
  // Before a second has passed, rates are noise.
  if (seconds >= 1 && rate > 0) {
    absl::StrAppendFormat(&text, rate < 10 ? ", %.1f/s" : ", %.0f/s", rate);
    if (total > done) {
      const double left = std::ceil(static_cast<double>(total - done) / rate);
      absl::StrAppend(&text, ", ", absl::FormatDuration(absl::Seconds(left)),
                      " left");
    }
  }
  // Room for the bar: at most 30 columns, none if it would be tiny.
  const int64_t width =
      std::min<int64_t>(30, columns - static_cast<int64_t>(text.size()) - 4);
  if (total <= 0 || width < 5) return text;
  const int64_t filled = std::clamp<int64_t>(done, 0, total) * width / total;
  return absl::StrCat("[", std::string(filled, '='),
                      std::string(width - filled, ' '), "] ", text);
}

void ProgressLine::Show(int64_t done, int64_t total, const std::string& unit) {
  if (!terminal_.progress) return;
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin_);
  const int columns = terminal_.columns > 0 ? terminal_.columns : 80;
  terminal_.err << "\r\x1b[K"
                << FormatProgress(done, total, unit, seconds, columns)
                << std::flush;
  shown_ = true;
}

void ProgressLine::Clear() {
  if (shown_) terminal_.err << "\r\x1b[K" << std::flush;
  shown_ = false;
}

std::string Safe(absl::string_view text) { return render::SafeText(text); }

}  // namespace limpid::cli
