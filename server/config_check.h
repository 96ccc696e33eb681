// SPDX-License-Identifier: Apache-2.0
//
// A configuration message -> valid settings, or every mistake in it.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "limpid/config/v1/server_config.pb.h"
#include "server/base/status.h"
#include "server/config.h"

namespace limpid {

// Puts the values of flags over those of the file and remembers which they
// were, for messages.
class Overrides {
 public:
  template <typename Set>
  void Apply(const std::optional<std::string>& value, const char* field,
             const char* flag, Set set) {
    if (!value) return;
    set(*value);
    flag_of_[field] = flag;
  }
  std::string NameOf(const std::string& field) const {
    const auto it = flag_of_.find(field);
    return it == flag_of_.end() ? field : it->second;
  }

 private:
  std::map<std::string, std::string> flag_of_;
};

// Settings with defaults where nothing is set. Mistakes have the path of their
// field, or the flag that set it; looks whether the repository is a folder.
Settings CheckConfig(const config::v1::ServerConfig& config,
                     bool repository_required, const Overrides& overrides,
                     Violations& mistakes);

}  // namespace limpid
