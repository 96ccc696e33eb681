// SPDX-License-Identifier: Apache-2.0
#include "server/input/rwkv_world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "tests/unit/input/tokenizer_testing.h"

namespace limpid {
namespace {

using std::string_literals::operator""s;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using TokenizerPtr = std::shared_ptr<const Tokenizer>;

constexpr char kEndOfText[] = "<|rwkv_tokenizer_end_of_text|>";

TokenizerPtr Make(const std::string& vocabulary) {
  auto tokenizer = MakeRwkvWorld(vocabulary, "v.txt");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TokenizerPtr Tiny() { return Make(GoldenFile("tiny-rwkv-world.txt")); }

TEST(RwkvWorldTest, GivesTheIdsOfThePythonPackage) {
  ExpectGolden(*Tiny(), "tiny-rwkv-world.jsonl");
}

TEST(RwkvWorldTest, SpansAreThePieces) {
  ExpectSpansArePieces(*Tiny(), "Hi\0 w\u00f6rld  \u65e5\u672c \U0001f44d"s +
                                    kEndOfText + "\n\n    x 123");
}

TEST(RwkvWorldTest, TakesTheLongestTokenFromTheLeft) {
  const TokenizerPtr tokenizer = Make(
      "1 'a' 1\n2 'b' 1\n3 'c' 1\n4 'ab' 2\n5 'abcab' 5\n7 'bca' 3\n"
      "9 b'\\xe6\\x97' 2\n8 b'\\xa5' 1\n");
  EXPECT_THAT(Ids(tokenizer->Encode("abcaab")), ElementsAre(4, 3, 1, 4));
  EXPECT_THAT(Ids(tokenizer->Encode("abcabca")), ElementsAre(5, 3, 1));
  EXPECT_THAT(Ids(tokenizer->Encode("bcab")), ElementsAre(7, 2));
  EXPECT_THAT(Ids(tokenizer->Encode("a\u65e5")), ElementsAre(1, 9, 8));
  EXPECT_THAT(Spans(tokenizer->Encode("a\u65e5")),
              ElementsAre(std::pair(0, 1), std::pair(1, 3), std::pair(3, 4)));
  EXPECT_EQ(tokenizer->Piece(9), "\xe6\x97");
  EXPECT_EQ(tokenizer->Piece(6), "");
  EXPECT_EQ(tokenizer->vocabulary_size(), 10);
}

TEST(RwkvWorldTest, EndOfTextIsTheOnlySpecialToken) {
  const TokenizerPtr tokenizer = Tiny();
  EXPECT_EQ(tokenizer->Piece(0), kEndOfText);
  EXPECT_TRUE(tokenizer->IsSpecial(0));
  EXPECT_FALSE(tokenizer->IsSpecial(1));
  EXPECT_EQ(tokenizer->Piece(1), "\0"s);
  for (const int64_t id :
       {int64_t{-1}, tokenizer->vocabulary_size(), int64_t{1} << 40}) {
    EXPECT_EQ(tokenizer->Piece(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
  }
  const auto tokens = tokenizer->Encode("a"s + kEndOfText + kEndOfText + "a");
  EXPECT_THAT(Ids(tokens), ElementsAre(98, 0, 0, 98));
  EXPECT_THAT(Spans(tokens), ElementsAre(std::pair(0, 1), std::pair(1, 31),
                                         std::pair(31, 61), std::pair(61, 62)));
  // Python's original has no spelling for it; this one is of other models.
  EXPECT_GT(Ids(tokenizer->Encode("<|endoftext|>")).size(), 1u);
}

TEST(RwkvWorldTest, NoTokenReachesIntoTheEndOfText) {
  const TokenizerPtr tokenizer =
      Make("1 'a' 1\n2 'a<' 2\n3 '<' 1\n4 '|' 1\n5 'a<|rwkv' 7\n");
  EXPECT_THAT(Ids(tokenizer->Encode("a"s + kEndOfText + "a<|")),
              ElementsAre(1, 0, 2, 4));
}

TEST(RwkvWorldTest, ALineForTheEndOfTextSetsItsSpelling) {
  const TokenizerPtr tokenizer = Make("0 '<end>' 5\n1 'a' 1\n");
  EXPECT_EQ(tokenizer->Piece(0), "<end>");
  EXPECT_TRUE(tokenizer->IsSpecial(0));
  EXPECT_THAT(Ids(tokenizer->Encode("a<end>a")), ElementsAre(1, 0, 1));
}

TEST(RwkvWorldTest, LinesEndAsTheyLike) {
  for (const char* text : {"1 'a' 1\n2 'b c' 3\n", "1 'a' 1\r\n2 'b c' 3\r\n",
                           "1 'a' 1\r\n2 'b c' 3", "2 'b c' 3\n1 'a' 1"}) {
    EXPECT_THAT(Ids(Make(text)->Encode("ab c")), ElementsAre(1, 2)) << text;
  }
}

TEST(RwkvWorldTest, RefusesTextThatIsNotUtf8) {
  for (const auto& [text, offset] : TextsThatAreNotUtf8()) {
    ExpectRefusedAt(*Tiny(), text, offset);
  }
}

TEST(RwkvWorldTest, RefusesBytesOutsideTheVocabulary) {
  ExpectRefusedAt(*Make("1 'a' 1\n2 'bcd' 3\n"), "aabcdabca", 6);
}

TEST(RwkvWorldTest, TimeIsLinearWhateverTheText) {
  const TokenizerPtr tokenizer = Tiny();
  for (const std::string& text : LongTexts()) {
    EXPECT_LT(SecondsToEncode(*tokenizer, text), 5) << text.substr(0, 6);
  }
  // Everything behind the first byte is looked at in vain.
  const std::string almost(1000, 'a');
  EXPECT_LT(SecondsToEncode(*Make("1 'a' 1\n2 '" + almost + "b' 1001"),
                            std::string(100'000, 'a')),
            5);
}

class RwkvWorldDamagedTest
    : public testing::TestWithParam<std::pair<std::string, const char*>> {};

// A vocabulary, and what the error's message must begin with behind the file.
TEST_P(RwkvWorldDamagedTest, NamesFileAndLine) {
  const absl::Status status = MakeRwkvWorld(GetParam().first, "v.txt").status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(GetErrorDetails(status).reason, "TOKENIZER_DAMAGED");
  EXPECT_EQ(GetErrorDetails(status).metadata.at("file"), "v.txt");
  EXPECT_THAT(std::string(status.message()),
              StartsWith("v.txt: "s + GetParam().second));
}

INSTANTIATE_TEST_SUITE_P(
    Lines, RwkvWorldDamagedTest,
    testing::Values(
        std::pair("", "it has no tokens"), std::pair("\n", "line 1: not an id"),
        std::pair("1 'a' 1\n\n2 'b' 1\n", "line 2: not an id"),
        std::pair("1 'a' 1\n2 'b'\n", "line 2: not an id"),
        std::pair("1 'a'", "line 1: not an id"),
        std::pair("1  ", "line 1: not an id"),
        std::pair("1  1", "line 1: neither"),
        std::pair("'a' 1 1", "line 1: not an id"),
        std::pair("-1 'a' 1", "line 1: not an id"),
        std::pair("+1 'a' 1", "line 1: not an id"),
        std::pair(" 1 'a' 1", "line 1: not an id"),
        std::pair("1 'a' 1 ", "line 1: not an id"),
        std::pair("1 'a' 1\t", "line 1: not an id"),
        std::pair("1 'a' 0x1", "line 1: not an id"),
        std::pair("1 'a' 99999999999", "line 1: not an id"),
        std::pair("4194304 'a' 1", "line 1: the id 4194304"),
        std::pair("1 'a' 2", "line 1: the token has 1 bytes"),
        std::pair("1 '\u00e9' 1", "line 1: the token has 2 bytes"),
        std::pair("1 '' 0", "line 1: the token has 0 bytes"),
        std::pair("1 '" + std::string(1025, 'a') + "' 1025",
                  "line 1: the token has 1025 bytes"),
        std::pair("1 'a' 1\r\n2 'a' 1\r\n", "line 2: the id 1 has the same"),
        std::pair("1 'a' 1\n1 'b' 1\n", "line 2: the id 1 is there twice"),
        std::pair("0 'a' 1\n0 'b' 1\n", "line 2: the id 0 is there twice"),
        std::pair("1 'a' 1\n2 'b 1\n", "line 2: the closing quote"),
        std::pair("1 __import__('os') 2\n", "line 1: neither"),
        std::pair("1 'a'*9 9\n", "line 1: something"),
        std::pair("1 '\\ud800' 3\n", "line 1: a surrogate"),
        std::pair("1 'a\xff' 2\n", "line 1: not UTF-8"),
        std::pair("1 'a\0' 2\n"s, "line 1: a NUL")));

}  // namespace
}  // namespace limpid
