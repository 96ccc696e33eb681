// SPDX-License-Identifier: Apache-2.0
#include "server/checkpoint/hf_config.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/json_guard.h"

namespace limpid {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 64;
constexpr int64_t kMaxValues = 1'000'000;
constexpr char kFloatKey[] = "__float__";

// Replaces the bare numbers that are not JSON by {"__float__": "..."}.
std::string QuoteSpecialNumbers(absl::string_view text) {
  static constexpr absl::string_view kWords[] = {"-Infinity", "Infinity",
                                                 "NaN"};
  std::string out;
  out.reserve(text.size());
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    if (!in_string) {
      bool replaced = false;
      for (const absl::string_view word : kWords) {
        if (text.substr(i, word.size()) == word) {
          absl::StrAppend(&out, "{\"", kFloatKey, "\":\"", word, "\"}");
          i += word.size();
          replaced = true;
          break;
        }
      }
      if (replaced) continue;
    }
    const char c = text[i++];
    out.push_back(c);
    if (c == '"') in_string = !in_string;
    if (c == '\\' && in_string && i < text.size()) out.push_back(text[i++]);
  }
  return out;
}

// A number in one of the spellings that configs use.
std::optional<double> AsDouble(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (!value.is_object() || value.size() != 1) return std::nullopt;
  const auto word = value.find(kFloatKey);
  if (word == value.end() || !word->is_string()) return std::nullopt;
  const std::string& name = word->get_ref<const std::string&>();
  if (name == "Infinity") return std::numeric_limits<double>::infinity();
  if (name == "-Infinity") return -std::numeric_limits<double>::infinity();
  if (name == "NaN") return std::numeric_limits<double>::quiet_NaN();
  return std::nullopt;
}

std::string TypeName(const Json& value) {
  if (value.is_number_float()) return "a fraction";
  return absl::StrCat("of type ", value.type_name());
}

}  // namespace

struct HfConfig::Impl {
  std::string file;
  std::string prefix;  // Of field names in messages: "" or "outer.".
  // The tree is shared with the configs of its objects.
  std::shared_ptr<const Json> json;
  std::vector<FieldViolation> errors;

  // Null for a missing field.
  const Json* Find(absl::string_view name) const {
    const auto found = json->find(std::string(name));
    return found == json->end() || found->is_null() ? nullptr : &*found;
  }
  void Add(absl::string_view name, absl::string_view what) {
    errors.push_back({absl::StrCat(prefix, name), std::string(what)});
  }
  void WrongType(absl::string_view name, const Json& value,
                 absl::string_view wanted) {
    Add(name, absl::StrCat("is ", TypeName(value), ", must be ", wanted));
  }
};

absl::StatusOr<HfConfig> HfConfig::Parse(absl::string_view text,
                                         std::string file) {
  const auto damaged = [&file](absl::string_view what) {
    ErrorDetails details;
    details.reason = "CONFIG_DAMAGED";
    details.metadata["file"] = file;
    return MakeError(absl::StatusCode::kDataLoss,
                     absl::StrCat(file, ": ", what), std::move(details));
  };
  if (!IsTameJson(text, kMaxDepth, kMaxValues)) {
    return damaged("nested too deep, too many values, or a NUL byte in it");
  }
  const std::string plain = QuoteSpecialNumbers(text);
  Json json = Json::parse(plain, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return damaged("not JSON");
  if (!json.is_object() || AsDouble(json)) return damaged("not a JSON object");
  auto impl = std::make_unique<Impl>();
  impl->file = std::move(file);
  impl->json = std::make_shared<const Json>(std::move(json));
  return HfConfig(std::move(impl));
}

HfConfig::HfConfig(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HfConfig::HfConfig(HfConfig&&) noexcept = default;
HfConfig& HfConfig::operator=(HfConfig&&) noexcept = default;
HfConfig::~HfConfig() = default;

bool HfConfig::Has(absl::string_view name) const {
  return impl_->Find(name) != nullptr;
}

bool HfConfig::IsNull(absl::string_view name) const {
  const auto found = impl_->json->find(std::string(name));
  return found != impl_->json->end() && found->is_null();
}

bool HfConfig::IsString(absl::string_view name) const {
  const Json* value = impl_->Find(name);
  return value != nullptr && value->is_string();
}

int64_t HfConfig::Int(absl::string_view name, int64_t fallback, int64_t min,
                      int64_t max) {
  const Json* value = impl_->Find(name);
  if (value == nullptr) return fallback;
  if (!value->is_number_integer()) {
    impl_->WrongType(name, *value, "an integer");
    return fallback;
  }
  // An unsigned number may lie beyond the signed ones.
  const bool huge =
      value->is_number_unsigned() &&
      value->get<uint64_t>() >
          static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  const int64_t number = huge ? 0 : value->get<int64_t>();
  if (huge || number < min || number > max) {
    const std::string came =
        huge ? absl::StrCat(value->get<uint64_t>()) : absl::StrCat(number);
    impl_->Add(name,
               absl::StrCat("is ", came, ", must be from ", min, " to ", max));
    return fallback;
  }
  return number;
}

int64_t HfConfig::RequiredInt(absl::string_view name, int64_t min,
                              int64_t max) {
  if (!Has(name)) {
    impl_->Add(name, absl::StrCat("is missing, must be an integer from ", min,
                                  " to ", max));
    return min;
  }
  return Int(name, min, min, max);
}

double HfConfig::Double(absl::string_view name, double fallback) {
  const Json* value = impl_->Find(name);
  if (value == nullptr) return fallback;
  const std::optional<double> number = AsDouble(*value);
  if (!number) impl_->WrongType(name, *value, "a number");
  return number.value_or(fallback);
}

bool HfConfig::Bool(absl::string_view name, bool fallback) {
  const Json* value = impl_->Find(name);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  impl_->WrongType(name, *value, "true or false");
  return fallback;
}

std::string HfConfig::String(absl::string_view name,
                             absl::string_view fallback) {
  const Json* value = impl_->Find(name);
  if (value != nullptr) {
    if (value->is_string()) return value->get<std::string>();
    impl_->WrongType(name, *value, "a string");
  }
  return std::string(fallback);
}

std::vector<std::string> HfConfig::Strings(absl::string_view name) {
  const Json* value = impl_->Find(name);
  if (value == nullptr) return {};
  std::vector<std::string> out;
  if (value->is_array()) {
    for (const Json& item : *value) {
      if (item.is_string()) out.push_back(item.get<std::string>());
    }
    if (out.size() == value->size()) return out;
  }
  impl_->WrongType(name, *value, "a list of strings");
  return {};
}

std::vector<double> HfConfig::Doubles(absl::string_view name) {
  const Json* value = impl_->Find(name);
  if (value == nullptr) return {};
  if (const std::optional<double> number = AsDouble(*value)) return {*number};
  std::vector<double> out;
  if (value->is_array()) {
    for (const Json& item : *value) {
      if (const std::optional<double> number = AsDouble(item)) {
        out.push_back(*number);
      }
    }
    if (out.size() == value->size()) return out;
  }
  impl_->WrongType(name, *value, "a list of numbers");
  return {};
}

HfConfig HfConfig::Object(absl::string_view name) {
  auto inner = std::make_unique<Impl>();
  inner->file = impl_->file;
  inner->prefix = absl::StrCat(impl_->prefix, name, ".");
  const Json* value = impl_->Find(name);
  if (value != nullptr && value->is_object()) {
    inner->json = std::shared_ptr<const Json>(impl_->json, value);
  } else {
    if (value != nullptr) impl_->WrongType(name, *value, "an object");
    inner->json = std::make_shared<const Json>(Json::object());
  }
  return HfConfig(std::move(inner));
}

void HfConfig::AddError(absl::string_view name, absl::string_view what) {
  impl_->Add(name, what);
}

absl::Status HfConfig::status() const {
  if (impl_->errors.empty()) return absl::OkStatus();
  std::string message = absl::StrCat(impl_->file, ": ");
  for (const FieldViolation& error : impl_->errors) {
    absl::StrAppend(&message, &error == &impl_->errors.front() ? "" : "; ",
                    error.field, " ", error.description);
  }
  ErrorDetails details;
  details.reason = "CONFIG_INVALID";
  details.metadata["file"] = impl_->file;
  details.violations = impl_->errors;
  return MakeError(absl::StatusCode::kDataLoss, message, std::move(details));
}

}  // namespace limpid
