// SPDX-License-Identifier: Apache-2.0
//
// Which version of a model is to serve: the newest one that can be read.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "server/base/status.h"
#include "server/registry/model_folders.h"

namespace limpid {

// The version that serves while a newer one is looked for, and its folder's
// fingerprint when it was read.
struct ServedVersion {
  int64_t version = 0;
  std::string fingerprint;
};

struct VersionChoice {
  // Index in the folders of the version that was read, and its fingerprint
  // before that; none: see `keeps`.
  std::optional<size_t> read;
  std::string fingerprint;
  // What serves is the newest that there is, or that can be read.
  bool keeps = false;
  // Why the newest one could not be read; ok if it was.
  absl::Status failure;
};

// Calls `read` for one version after the other, newest first, until one
// succeeds. Those that are older than `served` are left alone while its folder
// is there, since what serves is better than they are, and so is the very
// folder that it was read from. Ends early with RESOURCE_EXHAUSTED: there may
// be room for the newer version soon.
VersionChoice ChooseVersion(
    const ModelFolder& folders, const std::optional<ServedVersion>& served,
    const std::function<std::string(const std::string& folder)>& fingerprint,
    const std::function<absl::Status(const VersionFolder& folder)>& read);

}  // namespace limpid
