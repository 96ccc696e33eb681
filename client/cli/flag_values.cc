// SPDX-License-Identifier: Apache-2.0
#include "client/cli/flag_values.h"

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace limpid::cli {
namespace {

// No model has as many; a slip of the keyboard must not fill the memory.
constexpr int64_t kMaxLayers = 65536;

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
  return Refuse(text, "predicted, token:ID, class:ID or contrast:ID,ID");
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

absl::StatusOr<v1::Position> ParsePosition(const std::string& text) {
  v1::Position position;
  int32_t index = 0;
  if (text == "last") {
    position.mutable_last();
  } else if (text == "cls") {
    position.mutable_class_token();
  } else if (ToInt(text, &index)) {
    position.set_index(index);
  } else {
    return Refuse(text, "a token index, last or cls");
  }
  return position;
}

absl::StatusOr<std::vector<int32_t>> ParseLayers(const std::string& text) {
  std::vector<int32_t> layers;
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    int32_t first = 0, last = 0;
    // The first character may be a minus sign.
    const size_t dash = item.find('-', 1);
    const bool range = dash != absl::string_view::npos;
    if (!ToInt(item.substr(0, dash), &first) ||
        (range && (!ToInt(item.substr(dash + 1), &last) || last < first))) {
      return Refuse(text, "a list of layers such as 0-3,7");
    }
    if (!range) last = first;
    if (int64_t{last} - first >= kMaxLayers ||
        static_cast<int64_t>(layers.size()) >= kMaxLayers) {
      return Refuse(text, "a list of layers: too many");
    }
    for (int64_t layer = first; layer <= last; ++layer) {
      layers.push_back(static_cast<int32_t>(layer));
    }
  }
  return layers;
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
