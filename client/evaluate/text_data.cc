// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/text_data.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/evaluate/protocol.h"

namespace limpid::evaluate {
namespace {

bool IsWordByte(char byte) {
  // Bytes beyond ASCII are parts of letters more often than not.
  const auto value = static_cast<unsigned char>(byte);
  return absl::ascii_isalnum(value) || value >= 0x80;
}

// Index of the first byte from `from` on that is white space or is not.
size_t Skip(absl::string_view text, size_t from, bool space) {
  while (from < text.size() &&
         absl::ascii_isspace(static_cast<unsigned char>(text[from])) == space) {
    ++from;
  }
  return from;
}

}  // namespace

absl::StatusOr<std::vector<Sentence>> ParseSentences(absl::string_view lines,
                                                     size_t limit) {
  std::vector<Sentence> sentences;
  size_t number = 0;
  for (absl::string_view line : absl::StrSplit(lines, '\n')) {
    ++number;
    if (sentences.size() == limit) break;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    const auto json = nlohmann::json::parse(line.begin(), line.end(), nullptr,
                                            /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("text") ||
        !json["text"].is_string() || json["text"] == "" ||
        (json.contains("label") && !json["label"].is_number_integer())) {
      return DataError(absl::StrCat(
          "line ", number,
          ": expected {\"text\": STRING} with or without \"label\": TOKEN"));
    }
    Sentence sentence{json["text"].get<std::string>(), std::nullopt};
    if (json.contains("label")) sentence.label = json["label"].get<int64_t>();
    sentences.push_back(std::move(sentence));
  }
  if (sentences.empty()) return DataError("there are no sentences");
  return sentences;
}

absl::StatusOr<std::map<std::string, double>> ParseRatings(
    absl::string_view lines) {
  std::map<std::string, double> ratings;
  size_t number = 0;
  for (absl::string_view line : absl::StrSplit(lines, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    const std::vector<absl::string_view> parts = absl::StrSplit(line, '\t');
    double rating = 0;
    if (parts.size() < 2 || parts[0].empty() ||
        !absl::SimpleAtod(parts[1], &rating) || !std::isfinite(rating)) {
      return DataError(
          absl::StrCat("line ", number, ": expected WORD, tab, RATING"));
    }
    ratings[std::string(parts[0])] = rating;
  }
  if (ratings.empty()) return DataError("there are no word ratings");
  return ratings;
}

std::vector<Word> SplitWords(absl::string_view text,
                             std::span<const v1::Token> tokens) {
  std::vector<Word> words;
  size_t token = 0;
  for (size_t begin = Skip(text, 0, true); begin < text.size();) {
    const size_t end = Skip(text, begin, false);
    Word word;
    for (; token < tokens.size(); ++token) {
      const auto first = static_cast<size_t>(tokens[token].begin());
      if (Skip(text, first, true) >= end) break;
      word.tokens.push_back(token);
    }
    absl::string_view run = text.substr(begin, end - begin);
    while (!run.empty() && !IsWordByte(run.front())) run.remove_prefix(1);
    while (!run.empty() && !IsWordByte(run.back())) run.remove_suffix(1);
    word.text = absl::AsciiStrToLower(run);
    if (!word.text.empty() && !word.tokens.empty()) words.push_back(word);
    begin = Skip(text, end, true);
  }
  return words;
}

}  // namespace limpid::evaluate
