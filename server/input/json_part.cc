// SPDX-License-Identifier: Apache-2.0
#include "server/input/json_part.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/input/tokenizer_errors.h"

namespace limpid {

using Json = nlohmann::json;

std::string ShownInMessage(const Json& value) {
  if (value.is_string()) {
    return absl::StrCat(
        "\"", absl::CEscape(value.get_ref<const std::string&>().substr(0, 80)),
        "\"");
  }
  return value.is_structured() ? value.type_name() : value.dump();
}

JsonPart::JsonPart(const std::string& file, std::string path, const Json& json)
    : file_(file), path_(std::move(path)), json_(json) {
  if (!json.is_object()) {
    Damage(
        absl::StrCat(path_, " is ", ShownInMessage(json), ", not an object"));
  }
}

const Json* JsonPart::Get(const char* name) {
  known_.push_back(name);
  if (!json_.is_object()) return nullptr;
  const auto found = json_.find(name);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

bool JsonPart::Bool(const char* name, bool fallback) {
  const Json* value = Get(name);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  Damage(absl::StrCat(Path(name), " is ", ShownInMessage(*value),
                      ", must be true or false"));
  return fallback;
}

std::string JsonPart::String(const char* name) {
  const Json* value = Get(name);
  if (value != nullptr && value->is_string()) return value->get<std::string>();
  Damage(absl::StrCat(Path(name), " is missing or no string"));
  return "";
}

void JsonPart::Only(const char* name, std::initializer_list<Json> allowed) {
  const Json* value = Get(name);
  if (value == nullptr) return;
  if (std::find(allowed.begin(), allowed.end(), *value) == allowed.end()) {
    Unsupported(name, ShownInMessage(*value));
  }
}

void JsonPart::Damage(absl::string_view what) {
  if (status_.ok()) status_ = TokenizerDamaged(file_, what);
}

void JsonPart::Unsupported(absl::string_view name, absl::string_view what) {
  if (status_.ok()) status_ = TokenizerUnsupported(file_, Path(name), what);
}

std::string JsonPart::Path(absl::string_view name) const {
  return path_.empty() ? std::string(name) : absl::StrCat(path_, ".", name);
}

absl::Status JsonPart::Finish() {
  if (!status_.ok()) return status_;
  for (const auto& [name, value] : json_.items()) {
    if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
      Unsupported(absl::CEscape(name.substr(0, 80)), "unknown");
    }
  }
  return status_;
}

}  // namespace limpid
