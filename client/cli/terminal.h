// SPDX-License-Identifier: Apache-2.0
//
// Where the program writes, and what can be shown there.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>

#include "absl/strings/string_view.h"
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
};

// Text on a background, with the escapes that switch back after it.
std::string Colored(ColorMode mode, render::Rgb background,
                    absl::string_view text);

// Index of the nearest of the 240 fixed colours of a 256-colour terminal.
int NearestOf256(render::Rgb color);

// A line on `err` that is written over as work proceeds; nothing without a
// terminal. Gone when it is destroyed.
class ProgressLine {
 public:
  explicit ProgressLine(Terminal& terminal) : terminal_(terminal) {}
  ~ProgressLine() { Clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void Show(int64_t done, int64_t total, const std::string& unit);
  void Clear();

 private:
  Terminal& terminal_;
  bool shown_ = false;
};

// Prints an error as every command does: code, reason, message, fields, request
// id.
void PrintError(Terminal& terminal, const absl::Status& status);

// Text that others wrote, safe to print.
std::string Safe(absl::string_view text);

}  // namespace limpid::cli
