// SPDX-License-Identifier: Apache-2.0
#include "server/registry/repository_watch.h"

#include <utility>

namespace limpid {

absl::StatusOr<std::vector<std::string>> RepositoryWatch::Look() {
  LIMPID_RETURN_IF_ERROR(registry_.Scan());
  std::map<std::string, std::string> changed = registry_.Changed(unread_);
  std::vector<std::string> settled;
  for (const auto& [name, fingerprint] : changed) {
    const auto before = last_.find(name);
    if (before != last_.end() && before->second == fingerprint) {
      settled.push_back(name);
    }
  }
  last_ = std::move(changed);
  return settled;
}

}  // namespace limpid
