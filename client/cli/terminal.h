// SPDX-License-Identifier: Apache-2.0
//
// Where the program writes, and what can be shown there.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cli/command_line.h"
#include "server/render/colormap.h"

namespace limpid::cli {

enum class ColorMode { kNone, k256, kTrueColor };

// Colours of a stream: none without a terminal, with NO_COLOR set or with
// TERM=dumb; 24 bits where COLORTERM promises them, else 256 colours.
ColorMode ChooseColor(bool is_terminal, const GetEnv& get_env);

struct Terminal {
  std::ostream& out;
  std::ostream& err;
  ColorMode color = ColorMode::kNone;  // of `out`
  bool progress = false;               // `err` is a terminal
  int columns = 0;  // of the terminal; 0 without one: nothing is wrapped
};

// Text on a background, with the escapes that switch back after it.
std::string Colored(ColorMode mode, render::Rgb background,
                    absl::string_view text);

// Index of the nearest of the 240 fixed colours of a 256-colour terminal.
int NearestOf256(render::Rgb color);

// "[====    ] lines 12/40, 3.1/s, 9s left" in fewer than `columns` columns if
// that is possible; `total` 0 if it is not known, `seconds` since the start.
std::string FormatProgress(int64_t done, int64_t total, const std::string& unit,
                           double seconds, int columns);

// A line on `err` that is written over as work proceeds; nothing without a
// terminal. Gone when it is destroyed.
class ProgressLine {
 public:
  explicit ProgressLine(Terminal& terminal)
      : terminal_(terminal), begin_(absl::Now()) {}
  ~ProgressLine() { Clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void Show(int64_t done, int64_t total, const std::string& unit);
  void Clear();

 private:
  Terminal& terminal_;
  const absl::Time begin_;
  bool shown_ = false;
};

// Text that others wrote, safe to print.
std::string Safe(absl::string_view text);

}  // namespace limpid::cli
