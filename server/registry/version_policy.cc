// SPDX-License-Identifier: Apache-2.0
#include "server/registry/version_policy.h"

#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

absl::Status OfVersion(const VersionFolder& folder,
                       const absl::Status& status) {
  if (folder.version == 0) return status;
  return MakeError(
      status.code(),
      absl::StrCat("version ", folder.version, ": ", status.message()),
      GetErrorDetails(status));
}

}  // namespace

VersionChoice ChooseVersion(
    const ModelFolder& folders, const std::optional<ServedVersion>& served,
    const std::function<std::string(const std::string& folder)>& fingerprint,
    const std::function<absl::Status(const VersionFolder& folder)>& read) {
  VersionChoice choice;
  for (size_t i = 0; i < folders.size(); ++i) {
    // Before the files are read: what changes meanwhile counts as changed.
    std::string now = fingerprint(folders[i].path);
    const bool serves = served && served->version == folders[i].version;
    if (serves && served->fingerprint == now) {
      choice.keeps = true;
      return choice;
    }
    const absl::Status status = read(folders[i]);
    if (status.ok()) {
      choice.read = i;
      choice.fingerprint = std::move(now);
      return choice;
    }
    if (choice.failure.ok()) choice.failure = OfVersion(folders[i], status);
    choice.keeps = served.has_value();
    if (serves || absl::IsResourceExhausted(status)) return choice;
  }
  choice.keeps = served.has_value();
  return choice;
}

}  // namespace limpid
