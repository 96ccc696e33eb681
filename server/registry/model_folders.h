// SPDX-License-Identifier: Apache-2.0
//
// Finds the model folders of a repository.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/status.h"

namespace limpid {

// Whether a folder with these files is a model's: config.json or a
// *.safetensors among them.
bool IsModelFolder(const std::vector<std::string>& files);

// Whether a folder's name can be a model's: UTF-8, at most 255 bytes, no
// control characters, and not hidden (no leading dot).
bool IsModelName(const std::string& name);

// A folder with a model's files.
struct VersionFolder {
  int64_t version = 0;  // 0: the model has no versions
  std::string path;
};
// Where a model's files are, newest version first: one folder, or one for each
// version.
using ModelFolder = std::vector<VersionFolder>;

// Model folders in `repository` by name; links are followed. A folder that is
// none, but holds model folders that are named by numbers from 1 on without
// leading zeros, is a model with versions. Everything else is ignored, also
// folders that can't be listed. NOT_FOUND or FAILED_PRECONDITION, reason
// REPOSITORY_UNREADABLE, if the repository itself can't be read.
absl::StatusOr<std::map<std::string, ModelFolder>> FindModelFolders(
    const std::string& repository);

// The number of a version folder; 0: the name is none.
int64_t VersionOf(const std::string& name);
// "NAME@2" as "NAME" and 2; none for other names.
std::optional<std::pair<std::string, int64_t>> SplitVersionedName(
    const std::string& name);

// Stands for what is in a model folder without reading it: names, sizes and
// times of its files, so that another value means that something was changed.
// Empty if the folder can't be listed.
std::string FolderFingerprint(const std::string& folder);

}  // namespace limpid
