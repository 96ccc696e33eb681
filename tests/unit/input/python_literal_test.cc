// SPDX-License-Identifier: Apache-2.0
#include "server/input/python_literal.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace limpid {
namespace {

using std::string_literals::operator""s;

class LiteralTest
    : public testing::TestWithParam<std::pair<const char*, std::string>> {};

TEST_P(LiteralTest, HasTheBytesThatPythonGivesIt) {
  const auto& [source, bytes] = GetParam();
  const absl::StatusOr<std::string> parsed = ParsePythonLiteral(source);
  ASSERT_TRUE(parsed.ok()) << source << ": " << parsed.status();
  EXPECT_EQ(*parsed, bytes) << source;
}

INSTANTIATE_TEST_SUITE_P(
    Strings, LiteralTest,
    testing::Values(
        std::pair("''", ""s), std::pair("'a'", "a"s),
        std::pair(R"("it's")", "it's"s), std::pair(R"('it\'s')", "it's"s),
        std::pair(R"('\\')", "\\"s), std::pair(R"('\"')", "\""s),
        std::pair(R"('\a\b\f\n\r\t\v')", "\a\b\f\n\r\t\v"s),
        std::pair(R"('\x00\x7f')", "\0\x7f"s),
        std::pair(R"('\xe9')", "\u00e9"s), std::pair(R"('\u00E9')", "\u00e9"s),
        std::pair(R"('\U0001F44D')", "\U0001f44d"s),
        std::pair("'\u65e5'", "\u65e5"s), std::pair(R"('\0')", "\0"s),
        std::pair(R"('\1012')", "A2"s), std::pair(R"('\18')", "\0018"s),
        std::pair(R"('\777')", "\u01ff"s), std::pair(R"('\q\ ')", "\\q\\ "s),
        std::pair(R"('\N{SNOWMAN}')", "\u2603"s),
        std::pair(R"('\N{latin small letter a}')", "a"s),
        std::pair(R"(u'a')", "a"s), std::pair(R"(U"a")", "a"s),
        std::pair(R"(r'\n')", "\\n"s), std::pair(R"(R'\'')", "\\'"s)));

INSTANTIATE_TEST_SUITE_P(
    Bytes, LiteralTest,
    testing::Values(std::pair("b'a'", "a"s), std::pair("B\"a'\"", "a'"s),
                    std::pair(R"(b'\xe6\x97')", "\xe6\x97"s),
                    std::pair(R"(b'\377\777\8')", "\xff\xff\\8"s),
                    std::pair(R"(b'\u0041\N{x}\U')", "\\u0041\\N{x}\\U"s),
                    std::pair(R"(rb'\x00')", "\\x00"s),
                    std::pair(R"(bR'\'')", "\\'"s)));

class NoLiteralTest : public testing::TestWithParam<std::string> {};

TEST_P(NoLiteralTest, IsRefused) {
  const absl::Status status = ParsePythonLiteral(GetParam()).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << GetParam();
  EXPECT_FALSE(status.message().empty());
}

INSTANTIATE_TEST_SUITE_P(
    Sources, NoLiteralTest,
    testing::Values("", "a", "'", "\"", "b'", "'a", "a'", "'a\"", "'a'b",
                    "'a' ", " 'a'", "'a''b'", "'''a'''", "f'a'", "bu'a'",
                    "ur'a'", "bb'a'", "bytes('a')", "('a')", "None", "1",
                    R"('\')", R"('a\')", R"('\x')", R"('\x1')", R"('\x1g')",
                    R"(b'\x1')", R"('\u123')", R"('\U0001F4')",
                    R"('\U00110000')", R"('\UFFFFFFFF')", R"('\ud800')",
                    R"('\N')", R"('\N{')", R"('\N{}')", R"('\N{no such name}')",
                    "b'\u00e9'", "rb'\u00e9'", "'\0'"s, "'a\rb'", "'a\nb'"));

}  // namespace
}  // namespace limpid
