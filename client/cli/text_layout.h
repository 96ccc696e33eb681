// SPDX-License-Identifier: Apache-2.0
//
// How much room text takes on a terminal, and text fitted to it. Widths are
// columns: 2 for wide characters, 0 for combining ones.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace limpid::cli {

// Of valid UTF-8 without control characters, as Safe() returns it.
int DisplayWidth(absl::string_view text);

// Cut or padded with blanks to exactly `width` columns.
std::string FitToWidth(absl::string_view text, int width);

// Lines of at most `width` columns, broken at blanks where there are any; one
// line if `width` is 0.
std::vector<std::string> WrapText(absl::string_view text, int width);

// A help text, whose lines are "  FLAG   what it does" or free text, with lines
// of at most `width` columns: what a flag does stays beside it, or below it
// where that is too narrow.
std::string WrapHelp(absl::string_view help, int width);

// The text set apart from its surroundings where it runs from right to left, so
// that a terminal which reorders text keeps it in its place.
std::string Isolated(absl::string_view text);

}  // namespace limpid::cli
