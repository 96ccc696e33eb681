// SPDX-License-Identifier: Apache-2.0
//
// Colours where they are wanted, and nothing that others wrote acts on the
// terminal.
#include "client/cli/terminal.h"

#include <map>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace limpid::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

ColorMode Choose(bool is_terminal,
                 const std::map<std::string, std::string>& environment) {
  return ChooseColor(is_terminal, [&](const char* name) {
    const auto it = environment.find(name);
    return it == environment.end() ? nullptr : it->second.c_str();
  });
}

TEST(TerminalTest, ColoursDependOnStreamAndEnvironment) {
  EXPECT_EQ(Choose(true, {{"TERM", "xterm"}}), ColorMode::k256);
  EXPECT_EQ(Choose(true, {{"TERM", "xterm"}, {"COLORTERM", "truecolor"}}),
            ColorMode::kTrueColor);
  EXPECT_EQ(Choose(false, {{"TERM", "xterm"}}), ColorMode::kNone);
  EXPECT_EQ(Choose(true, {{"TERM", "dumb"}}), ColorMode::kNone);
  EXPECT_EQ(Choose(true, {}), ColorMode::kNone);
  EXPECT_EQ(Choose(true, {{"TERM", "xterm"}, {"NO_COLOR", "1"}}),
            ColorMode::kNone);
  EXPECT_EQ(Choose(true, {{"TERM", "xterm"}, {"NO_COLOR", ""}}),
            ColorMode::k256);
}

TEST(TerminalTest, NearestColours) {
  EXPECT_EQ(NearestOf256({255, 255, 255}), 231);
  EXPECT_EQ(NearestOf256({0, 0, 0}), 16);
  EXPECT_EQ(NearestOf256({255, 0, 0}), 196);
  EXPECT_EQ(NearestOf256({128, 128, 128}), 244);
}

TEST(TerminalTest, ColoursEndAfterTheText) {
  EXPECT_EQ(Colored(ColorMode::kNone, render::kWhite, "x"), "x");
  EXPECT_EQ(Colored(ColorMode::kTrueColor, {1, 2, 3}, "x"),
            "\x1b[48;2;1;2;3;38;5;231mx\x1b[0m");
  EXPECT_THAT(Colored(ColorMode::k256, render::kWhite, "x"),
              HasSubstr("48;5;231;38;5;16m"));
}

TEST(TerminalTest, ProgressTellsRateAndRemainingTime) {
  EXPECT_EQ(FormatProgress(30, 120, "lines", 10, 80),
            "[=======                       ] lines 30/120, 3.0/s, 30s left");
  EXPECT_EQ(FormatProgress(30, 0, "lines", 10, 80), "lines 30, 3.0/s");
  EXPECT_EQ(FormatProgress(1, 4, "layer", 0.2, 80),
            "[=======                       ] layer 1/4");
  EXPECT_EQ(FormatProgress(4, 4, "layer", 2, 24), "layer 4/4, 2.0/s");
}

TEST(TerminalTest, ProgressFitsNarrowTerminals) {
  for (int columns = 30; columns <= 200; columns += 10) {
    EXPECT_LT(FormatProgress(30, 120, "lines", 10, columns).size(),
              static_cast<size_t>(columns) + 1);
  }
}

TEST(TerminalTest, ProgressNeedsATerminal) {
  std::ostringstream out, err;
  Terminal terminal{.out = out, .err = err};
  {
    ProgressLine progress(terminal);
    progress.Show(1, 2, "layer");
  }
  EXPECT_EQ(err.str(), "");
  terminal.progress = true;
  {
    ProgressLine progress(terminal);
    progress.Show(1, 2, "layer");
    progress.Show(-5, 0, "\x07 step");  // what a hostile server may send
    EXPECT_THAT(err.str(), HasSubstr("layer 1/2"));
  }
  EXPECT_THAT(err.str(), Not(HasSubstr("\x07")));
  EXPECT_THAT(err.str(), ::testing::EndsWith("\r\x1b[K"));
}

}  // namespace
}  // namespace limpid::cli
