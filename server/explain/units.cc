// SPDX-License-Identifier: Apache-2.0
#include "server/explain/units.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

// Bytes that tokens [begin, end) cover; empty without a text.
std::string TextOf(const Input& given, const ReadResult& input, size_t begin,
                   size_t end) {
  const auto* text = std::get_if<TextInput>(&given);
  if (text == nullptr) return "";
  const size_t first = input.tokens[begin].begin;
  const size_t last = std::max(first, input.tokens[end - 1].end);
  return text->text.substr(first, last - first);
}

ResultUnit UnitOf(const Input& given, const ReadResult& input, size_t begin,
                  size_t end) {
  ResultUnit unit;
  unit.begin = begin;
  unit.end = end;
  unit.text = TextOf(given, input, begin, end);
  return unit;
}

std::vector<ResultUnit> ReadWords(const Input& given, const ReadResult& input,
                                  Violations& violations) {
  const auto* given_text = std::get_if<TextInput>(&given);
  if (given_text == nullptr) {
    violations.Add("aggregation.unit",
                   "words are those of a text: give input.text");
    return {};
  }
  const std::string& text = given_text->text;
  std::vector<ResultUnit> words;
  size_t first = 0;     // of the word that is being read
  size_t word_end = 0;  // byte where it ends; 0: none yet
  for (size_t i = 0; i < input.tokens.size(); ++i) {
    size_t at = input.tokens[i].begin;
    const size_t end = input.tokens[i].end;
    while (at < end && absl::ascii_isspace(text[at])) ++at;
    if (at == end && at > input.tokens[i].begin) continue;
    if (word_end != 0 && at >= word_end) {
      // White space between two words goes with the one that follows.
      size_t last = i;
      while (last > first && input.tokens[last - 1].begin >= word_end) --last;
      words.push_back(UnitOf(given, input, first, last));
      first = last;
      word_end = 0;
    }
    if (word_end == 0) {
      word_end = at;
      while (word_end < text.size() && !absl::ascii_isspace(text[word_end])) {
        ++word_end;
      }
    }
  }
  if (!input.tokens.empty()) {
    words.push_back(UnitOf(given, input, first, input.tokens.size()));
  }
  for (ResultUnit& word : words) {
    word.text = std::string(absl::StripAsciiWhitespace(word.text));
  }
  return words;
}

bool CheckRange(const std::string& path, const TokenRange& range, int64_t limit,
                const char* what, Violations& violations) {
  if (range.begin >= 0 && range.end > range.begin && range.end <= limit) {
    return true;
  }
  violations.Add(path,
                 absl::StrCat("is [", range.begin, ", ", range.end,
                              "), must be a range of the ", limit, " ", what));
  return false;
}

std::vector<ResultUnit> ReadSpans(const std::vector<TokenRange>& spans,
                                  const Input& given, const ReadResult& input,
                                  Violations& violations) {
  std::vector<bool> taken(input.tokens.size());
  std::vector<ResultUnit> units;
  for (size_t i = 0; i < spans.size(); ++i) {
    const std::string path = absl::StrCat("aggregation.spans[", i, "]");
    if (!CheckRange(path, spans[i], input.length, "tokens", violations)) {
      continue;
    }
    const auto from = taken.begin() + spans[i].begin;
    const auto to = taken.begin() + spans[i].end;
    if (std::find(from, to, true) != to) {
      violations.Add(path, "overlaps another span");
      continue;
    }
    std::fill(from, to, true);
    units.push_back(UnitOf(given, input, spans[i].begin, spans[i].end));
  }
  return units;
}

std::vector<ResultUnit> ReadRegions(const std::vector<PatchRegion>& regions,
                                    const ModelInfo& info,
                                    Violations& violations) {
  std::vector<ResultUnit> units;
  for (size_t i = 0; i < regions.size(); ++i) {
    const std::string path = absl::StrCat("aggregation.regions[", i, "]");
    const auto& [rows, columns] = regions[i];
    CheckRange(path + ".rows", rows, info.grid_rows, "rows", violations);
    CheckRange(path + ".columns", columns, info.grid_columns, "columns",
               violations);
    ResultUnit unit;
    unit.region = {rows.begin, rows.end, columns.begin, columns.end};
    units.push_back(std::move(unit));
  }
  return units;
}

}  // namespace

std::vector<ResultUnit> ReadUnits(const AggregationRequest& request,
                                  const Input& given, const ReadResult& input,
                                  const ModelInfo& info,
                                  Violations& violations) {
  using Unit = AggregationRequest::Unit;
  const bool picture = info.modality == Modality::kImage;
  if (request.unit == Unit::kToken) return {};
  if (picture != (request.unit == Unit::kRegion)) {
    violations.Add("aggregation.unit",
                   picture ? "this model reads pictures: region"
                           : "this model reads text: token, word or span");
    return {};
  }
  switch (request.unit) {
    case Unit::kWord:
      return ReadWords(given, input, violations);
    case Unit::kSpan:
      if (request.spans.empty()) {
        violations.Add("aggregation.spans", "is empty, give at least one span");
      }
      return ReadSpans(request.spans, given, input, violations);
    default:
      if (request.regions.empty()) {
        violations.Add("aggregation.regions",
                       "is empty, give at least one region");
      }
      return ReadRegions(request.regions, info, violations);
  }
}

}  // namespace limpid
