// SPDX-License-Identifier: Apache-2.0
//
// What the tests of tokenizers share.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "server/base/mapped_file.h"
#include "server/input/tokenizer.h"

namespace limpid {

inline std::string GoldenFile(const std::string& name) {
  const auto text =
      ReadFile(std::string(LIMPID_TEST_DATA) + "/tokenizers/" + name, 16 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  return *text;
}

inline std::vector<int64_t> Ids(
    const absl::StatusOr<std::vector<TokenSpan>>& tokens) {
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  std::vector<int64_t> ids;
  for (const TokenSpan& token : *tokens) ids.push_back(token.id);
  return ids;
}

inline std::vector<std::pair<int, int>> Spans(
    const absl::StatusOr<std::vector<TokenSpan>>& tokens) {
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  std::vector<std::pair<int, int>> spans;
  for (const TokenSpan& token : *tokens) {
    spans.emplace_back(token.begin, token.end);
  }
  return spans;
}

// The texts of a golden file must have its ids and spans that are in order.
inline void ExpectGolden(const Tokenizer& tokenizer, const std::string& name) {
  const std::string lines = GoldenFile(name);
  int cases = 0;
  for (size_t begin = 0; begin < lines.size(); ++cases) {
    const size_t end = lines.find('\n', begin);
    const auto json = nlohmann::json::parse(lines.substr(begin, end - begin));
    begin = end + 1;
    const auto text = json["text"].get<std::string>();
    const auto tokens = tokenizer.Encode(text);
    EXPECT_EQ(Ids(tokens), json["ids"].get<std::vector<int64_t>>())
        << json["text"].dump();
    size_t last = 0;
    for (const TokenSpan& token : *tokens) {
      EXPECT_LE(last, token.begin) << json["text"].dump();
      EXPECT_LE(token.begin, token.end);
      EXPECT_LE(token.end, text.size());
      last = token.begin;
    }
  }
  EXPECT_GE(cases, 200);
}

// The spans must lie side by side and hold what the pieces say.
inline void ExpectSpansArePieces(const Tokenizer& tokenizer,
                                 const std::string& text) {
  const auto tokens = tokenizer.Encode(text);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  size_t end = 0;
  for (const TokenSpan& token : *tokens) {
    EXPECT_EQ(token.begin, end);
    EXPECT_EQ(text.substr(token.begin, token.end - token.begin),
              tokenizer.Piece(token.id));
    end = token.end;
  }
  EXPECT_EQ(end, text.size());
}

inline void ExpectRefusedAt(const Tokenizer& tokenizer, const std::string& text,
                            int offset) {
  const absl::Status status = tokenizer.Encode(text).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "TEXT_INVALID");
  ASSERT_EQ(details.violations.size(), 1u);
  EXPECT_EQ(details.violations[0].field, "input.text");
  const std::string at = "byte " + std::to_string(offset) + ":";
  EXPECT_EQ(details.violations[0].description.substr(0, at.size()), at);
}

// Texts that are not UTF-8, with the first bad byte.
inline std::vector<std::pair<std::string, int>> TextsThatAreNotUtf8() {
  return {{"\xff", 0},           {"abc\x80", 3},          {"a\xc3", 1},
          {"a\xc3(", 1},         {"\xc0\x80", 0},         {"ab\xed\xa0\x80", 2},
          {"\u00e9\xe2\x82", 2}, {"\xf4\x90\x80\x80", 0}, {"<s>\xbf", 3}};
}

// A mebibyte of text in patterns that tempt tokenizers into quadratic work.
inline std::vector<std::string> LongTexts() {
  constexpr size_t kSize = 1 << 20;
  std::vector<std::string> texts = {
      std::string(kSize, 'a'), std::string(kSize, ' '),
      std::string(kSize, '\n'), std::string(kSize, '\0')};
  for (const std::string part : {"ab", " the", "   x", "\u65e5", "\U0001f44d",
                                 "e\u0301", "<", "<s", "1 \n"}) {
    std::string& text = texts.emplace_back();
    while (text.size() < kSize) text += part;
  }
  return texts;
}

inline double SecondsToEncode(const Tokenizer& tokenizer,
                              const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  const auto tokens = tokenizer.Encode(text);
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

}  // namespace limpid
