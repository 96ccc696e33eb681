// SPDX-License-Identifier: Apache-2.0
//
// Finds the model folders of a repository.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "server/base/status.h"

namespace limpid {

// Whether a folder with these files is a model's: config.json or a
// *.safetensors among them.
bool IsModelFolder(const std::vector<std::string>& files);

// Whether a folder's name can be a model's: UTF-8, at most 255 bytes, no
// control characters, and not hidden (no leading dot).
bool IsModelName(const std::string& name);

// Model folders in `repository` by name; links are followed. Everything else
// in it is ignored, also folders that can't be listed. NOT_FOUND or
// FAILED_PRECONDITION, reason REPOSITORY_UNREADABLE, if the repository itself
// can't be read.
absl::StatusOr<std::map<std::string, std::string>> FindModelFolders(
    const std::string& repository);

// Stands for what is in a model folder without reading it: names, sizes and
// times of its files, so that another value means that something was changed.
// Empty if the folder can't be listed.
std::string FolderFingerprint(const std::string& folder);

}  // namespace limpid
