// SPDX-License-Identifier: Apache-2.0
#include "client/cli/flag_values.h"

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace limpid::cli {
namespace {

// A slip of the keyboard must not fill the memory.
constexpr int64_t kMaxNumbers = 65536;

absl::Status Refuse(absl::string_view text, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is not ", expected));
}

// Decimal digits with at most a minus before them: SimpleAtoi alone would also
// take white space and a plus.
template <class Int>
bool ToInt(absl::string_view text, Int* value) {
  const absl::string_view digits = absl::StripPrefix(text, "-");
  return !digits.empty() &&
         digits.find_first_not_of("0123456789") == absl::string_view::npos &&
         absl::SimpleAtoi(text, value);
}

// N or N-M with N <= M.
bool ToRange(absl::string_view text, int32_t* first, int32_t* last) {
  // The first character may be a minus sign.
  const size_t dash = text.find('-', 1);
  if (!ToInt(text.substr(0, dash), first)) return false;
  *last = *first;
  return dash == absl::string_view::npos ||
         (ToInt(text.substr(dash + 1), last) && *last >= *first);
}

}  // namespace

absl::StatusOr<int64_t> ParseInt64(const std::string& text) {
  int64_t value = 0;
  if (!ToInt(text, &value)) return Refuse(text, "a whole number of 64 bits");
  return value;
}

absl::StatusOr<int32_t> ParseInt32(const std::string& text) {
  int32_t value = 0;
  if (!ToInt(text, &value)) return Refuse(text, "a whole number of 32 bits");
  return value;
}

absl::StatusOr<bool> ParseBool(const std::string& text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return Refuse(text, "true or false");
}

absl::StatusOr<v1::Target> ParseTarget(const std::string& text) {
  v1::Target target;
  absl::string_view rest = text;
  int64_t id = 0;
  if (text == "predicted") {
    target.mutable_predicted();
    return target;
  }
  if (text == "next") {
    target.mutable_next();
    return target;
  }
  if (absl::ConsumePrefix(&rest, "token:") && ToInt(rest, &id)) {
    target.set_token_id(id);
    return target;
  }
  rest = text;
  if (absl::ConsumePrefix(&rest, "class:") && ToInt(rest, &id)) {
    target.set_class_id(id);
    return target;
  }
  rest = text;
  if (absl::ConsumePrefix(&rest, "contrast:")) {
    const std::vector<absl::string_view> ids = absl::StrSplit(rest, ',');
    int64_t baseline = 0;
    if (ids.size() == 2 && ToInt(ids[0], &id) && ToInt(ids[1], &baseline)) {
      target.mutable_contrast()->set_id(id);
      target.mutable_contrast()->set_baseline_id(baseline);
      return target;
    }
  }
  return Refuse(text, "predicted, next, token:ID, class:ID or contrast:ID,ID");
}

std::string FormatTarget(const v1::Target& target) {
  switch (target.kind_case()) {
    case v1::Target::kPredicted:
      return "predicted";
    case v1::Target::kTokenId:
      return absl::StrCat("token:", target.token_id());
    case v1::Target::kClassId:
      return absl::StrCat("class:", target.class_id());
    case v1::Target::kContrast:
      return absl::StrCat("contrast:", target.contrast().id(), ",",
                          target.contrast().baseline_id());
    default:
      return "";
  }
}

absl::StatusOr<std::vector<v1::Position>> ParsePositions(
    const std::string& text) {
  std::vector<v1::Position> positions(1);
  if (text == "last") {
    positions[0].mutable_last();
    return positions;
  }
  if (text == "cls") {
    positions[0].mutable_class_token();
    return positions;
  }
  const auto indices = ParseNumbers(text);
  if (!indices.ok()) {
    return Refuse(text, "token indices such as 5 or 3-6, last or cls");
  }
  positions.resize(indices->size());
  for (size_t i = 0; i < indices->size(); ++i) {
    positions[i].set_index((*indices)[i]);
  }
  return positions;
}

absl::StatusOr<std::vector<int32_t>> ParseNumbers(const std::string& text) {
  std::vector<int32_t> numbers;
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    int32_t first = 0, last = 0;
    if (!ToRange(item, &first, &last)) {
      return Refuse(text, "a list of numbers such as 0-3,7");
    }
    if (int64_t{last} - first >= kMaxNumbers ||
        static_cast<int64_t>(numbers.size()) >= kMaxNumbers) {
      return Refuse(text, "a list of numbers: too many");
    }
    for (int64_t number = first; number <= last; ++number) {
      numbers.push_back(static_cast<int32_t>(number));
    }
  }
  return numbers;
}

absl::StatusOr<v1::Aggregation> ParseAggregation(const std::string& text) {
  v1::Aggregation aggregation;
  absl::string_view rest = text;
  if (text == "token" || text == "word") {
    aggregation.set_unit(text == "word" ? v1::AGGREGATION_UNIT_WORD
                                        : v1::AGGREGATION_UNIT_TOKEN);
    return aggregation;
  }
  const bool spans = absl::ConsumePrefix(&rest, "span:");
  if (!spans && !absl::ConsumePrefix(&rest, "region:")) {
    return Refuse(text, "token, word, span:0-3,7 or region:0-1x2-5");
  }
  aggregation.set_unit(spans ? v1::AGGREGATION_UNIT_SPAN
                             : v1::AGGREGATION_UNIT_REGION);
  for (const absl::string_view item : absl::StrSplit(rest, ',')) {
    const std::vector<absl::string_view> sides =
        spans ? std::vector<absl::string_view>{item}
              : absl::StrSplit(item, 'x');
    int32_t first[2], last[2];
    if (sides.size() != (spans ? 1 : 2) ||
        !ToRange(sides.front(), &first[0], &last[0]) ||
        !ToRange(sides.back(), &first[1], &last[1]) ||
        std::max(last[0], last[1]) == std::numeric_limits<int32_t>::max()) {
      return Refuse(text, "span:0-3,7 or region:0-1x2-5");
    }
    if (spans) {
      v1::TokenSpan& span = *aggregation.add_spans();
      span.set_begin(first[0]);
      span.set_end(last[0] + 1);
    } else {
      v1::PatchRegion& region = *aggregation.add_regions();
      region.set_row_begin(first[0]);
      region.set_row_end(last[0] + 1);
      region.set_column_begin(first[1]);
      region.set_column_end(last[1] + 1);
    }
  }
  return aggregation;
}

absl::StatusOr<std::vector<int64_t>> ParseTokenIds(const std::string& text) {
  std::vector<int64_t> ids;
  if (text.empty()) return ids;
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    int64_t id = 0;
    if (!ToInt(item, &id)) return Refuse(text, "a list of ids such as 1,2,3");
    ids.push_back(id);
  }
  return ids;
}

absl::StatusOr<absl::Duration> ParseDeadline(const std::string& text) {
  absl::Duration duration;
  double seconds = 0;
  if (absl::ParseDuration(text, &duration)) return duration;
  if (absl::SimpleAtod(text, &seconds) && seconds == seconds) {
    return absl::Seconds(seconds);
  }
  return Refuse(text, "a duration such as 500ms, 30s or 5m");
}

absl::StatusOr<v1::Baseline> ParseBaseline(const std::string& text) {
  v1::Baseline baseline;
  absl::string_view rest = text;
  int64_t id = 0;
  if (text == "zero") {
    baseline.mutable_zero();
  } else if (text == "mean") {
    baseline.mutable_mean();
  } else if (text == "blur") {
    baseline.mutable_blur();
  } else if (absl::ConsumePrefix(&rest, "token:") && ToInt(rest, &id)) {
    baseline.set_token_id(id);
  } else if (absl::ConsumePrefix(&rest, "tokens:")) {
    for (const absl::string_view one : absl::StrSplit(rest, ',')) {
      if (!ToInt(one, &id)) return Refuse(text, "tokens:ID,ID,...");
      baseline.mutable_tokens()->add_ids(id);
    }
  } else {
    return Refuse(text, "zero, mean, token:ID, tokens:ID,ID,... or blur");
  }
  return baseline;
}

}  // namespace limpid::cli
