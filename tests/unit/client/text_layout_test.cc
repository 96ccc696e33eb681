// SPDX-License-Identifier: Apache-2.0
//
// Text on terminals: wide, combining and right-to-left characters.
#include "client/cli/text_layout.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace limpid::cli {
namespace {

using ::testing::ElementsAre;

TEST(TextLayoutTest, WidthsAreColumns) {
  EXPECT_EQ(DisplayWidth(""), 0);
  EXPECT_EQ(DisplayWidth("film"), 4);
  EXPECT_EQ(DisplayWidth("\u6620\u753b"), 4);  // two Han characters
  EXPECT_EQ(DisplayWidth("e\u0301"), 1);       // e with a combining accent
  EXPECT_EQ(DisplayWidth("\U0001F600"), 2);    // an emoji
  EXPECT_EQ(DisplayWidth("\u05D0\u05D1"), 2);  // two Hebrew letters
}

TEST(TextLayoutTest, FittedTextHasExactlyTheWidth) {
  EXPECT_EQ(FitToWidth("film", 6), "film  ");
  EXPECT_EQ(FitToWidth("film", 2), "fi");
  // A wide character that does not fit leaves a blank.
  EXPECT_EQ(FitToWidth("\u6620\u753b", 3), "\u6620 ");
  EXPECT_EQ(FitToWidth("e\u0301e", 1), "e\u0301");
}

TEST(TextLayoutTest, LinesAreBrokenAtBlanks) {
  EXPECT_THAT(WrapText("one two three", 7), ElementsAre("one two", "three"));
  EXPECT_THAT(WrapText("abcdefgh ij", 4), ElementsAre("abcd", "efgh", "ij"));
  EXPECT_THAT(WrapText("\u6620\u753b\u6620", 4),
              ElementsAre("\u6620\u753b", "\u6620"));
  EXPECT_THAT(WrapText("one two", 0), ElementsAre("one two"));
  EXPECT_THAT(WrapText("", 5), ElementsAre(""));
}

TEST(TextLayoutTest, HelpIsWrappedBesideItsFlag) {
  const std::string help =
      "Usage: limpid\n"
      "  --text TEXT       Text that is taken verbatim, every byte of it\n"
      "  --no              Short\n";
  EXPECT_EQ(WrapHelp(help, 40),
            "Usage: limpid\n"
            "  --text TEXT       Text that is taken\n"
            "                    verbatim, every byte\n"
            "                    of it\n"
            "  --no              Short\n");
  EXPECT_EQ(WrapHelp(help, 30),
            "Usage: limpid\n"
            "  --text TEXT\n"
            "      Text that is taken\n"
            "      verbatim, every byte of\n"
            "      it\n"
            "  --no              Short\n");
  EXPECT_EQ(WrapHelp(help, 80), help);
}

TEST(TextLayoutTest, OnlyRightToLeftTextIsIsolated) {
  EXPECT_EQ(Isolated("film \u6620"), "film \u6620");
  EXPECT_EQ(Isolated("\u05D0"), "\u2068\u05D0\u2069");
  EXPECT_EQ(Isolated("\u0645"), "\u2068\u0645\u2069");
}

}  // namespace
}  // namespace limpid::cli
