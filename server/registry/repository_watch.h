// SPDX-License-Identifier: Apache-2.0
//
// Which models should be read anew because their folders have changed.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/registry/model_registry.h"

namespace limpid {

// For one thread.
class RepositoryWatch {
 public:
  // `registry` outlives it. With `unread`, folders that were never read count
  // as changed, such as new ones.
  RepositoryWatch(ModelRegistry& registry, bool unread)
      : registry_(registry), unread_(unread) {}

  // Looks at the repository. A folder that is still being written looks
  // different every time: only one that was the same at the look before is
  // returned. One that could not be read is returned again when it changes.
  // Errors as FindModelFolders.
  absl::StatusOr<std::vector<std::string>> Look();

 private:
  ModelRegistry& registry_;
  const bool unread_;
  std::map<std::string, std::string> last_;
};

}  // namespace limpid
