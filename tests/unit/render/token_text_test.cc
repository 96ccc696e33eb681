// SPDX-License-Identifier: Apache-2.0
//
// Tokens show as text and can't act on a terminal or a page.
#include "server/render/token_text.h"

#include <string>

#include "gtest/gtest.h"

namespace limpid::render {
namespace {

TEST(TokenTextTest, KeepsOrdinaryText) {
  EXPECT_EQ(SafeText(" caf\xC3\xA9 \xF0\x9F\x98\x80"),
            " caf\xC3\xA9 \xF0\x9F\x98\x80");
}

TEST(TokenTextTest, ShowsLineFeedsAndTabsAsSigns) {
  EXPECT_EQ(SafeText("a\n\t"), "a\xE2\x86\xB5\xE2\x87\xA5");
}

TEST(TokenTextTest, ReplacesEscapesAndNul) {
  EXPECT_EQ(SafeText(std::string("\x1b[2J\0", 5)),
            "\xEF\xBF\xBD[2J\xEF\xBF\xBD");
}

TEST(TokenTextTest, ReplacesC1ControlsAndTextOrderMarks) {
  EXPECT_EQ(SafeText("\xC2\x9B"), "\xEF\xBF\xBD");      // CSI
  EXPECT_EQ(SafeText("\xE2\x80\xAE"), "\xEF\xBF\xBD");  // override
}

TEST(TokenTextTest, ReplacesEveryByteOfAnInvalidSequence) {
  EXPECT_EQ(DecodeUtf8("\xC3(").size(), 2u);
  EXPECT_EQ(DecodeUtf8("\xC0\x80").size(), 2u);          // overlong
  EXPECT_EQ(DecodeUtf8("\xED\xA0\x80").size(), 3u);      // surrogate
  EXPECT_EQ(DecodeUtf8("\xF4\x90\x80\x80").size(), 4u);  // beyond Unicode
  EXPECT_EQ(DecodeUtf8("\xE2\x82").size(), 2u);          // cut off
}

TEST(TokenTextTest, EncodesWhatItDecodes) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  std::string back;
  for (const char32_t c : DecodeUtf8(text)) AppendUtf8(c, back);
  EXPECT_EQ(back, text);
}

}  // namespace
}  // namespace limpid::render
