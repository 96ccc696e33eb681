// SPDX-License-Identifier: Apache-2.0
//
// Reads one object of a tokenizer.json and refuses what it does not know:
// anything overlooked there would give wrong ids. Private to this folder, as it
// shows the JSON library.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid {

// A JSON value for a message, which must not grow with the file.
std::string ShownInMessage(const nlohmann::json& value);

// The getters note the first mistake, and every name that was asked for.
class JsonPart {
 public:
  // `path` is the object's place in the file. `file` and `json` must outlive
  // this object. A `json` that is no object is a mistake.
  JsonPart(const std::string& file, std::string path,
           const nlohmann::json& json);

  // Null if it is missing or null.
  const nlohmann::json* Get(const char* name);
  bool Bool(const char* name, bool fallback);
  // It must be there.
  std::string String(const char* name);
  // The value must be one of those given, or missing.
  void Only(const char* name, std::initializer_list<nlohmann::json> allowed);
  void Ignore(const char* name) { known_.push_back(name); }

  // Note a mistake that the caller found.
  void Damage(absl::string_view what);
  void Unsupported(absl::string_view name, absl::string_view what);

  // Path of a member.
  std::string Path(absl::string_view name) const;
  // The first mistake; a member that was never asked for is one.
  absl::Status Finish();

 private:
  const std::string& file_;
  const std::string path_;
  const nlohmann::json& json_;
  std::vector<const char*> known_;
  absl::Status status_;
};

}  // namespace limpid
