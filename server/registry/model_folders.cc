// SPDX-License-Identifier: Apache-2.0
#include "server/registry/model_folders.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxNameBytes = 255;

bool IsContinuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// Well-formed enough for a name: right lead and continuation bytes.
bool IsUtf8(const std::string& text) {
  for (size_t i = 0; i < text.size();) {
    const unsigned char lead = text[i];
    size_t length = 0;
    if (lead < 0x80) length = 1;
    if (lead >= 0xC2 && lead < 0xE0) length = 2;
    if (lead >= 0xE0 && lead < 0xF0) length = 3;
    if (lead >= 0xF0 && lead < 0xF5) length = 4;
    if (length == 0 || i + length > text.size()) return false;
    for (size_t k = 1; k < length; ++k) {
      if (!IsContinuation(text[i + k])) return false;
    }
    const unsigned char second = length > 2 ? text[i + 1] : 0;
    if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
        (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) {
      return false;
    }
    i += length;
  }
  return true;
}

std::vector<std::string> FilesIn(const fs::path& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (!it->is_directory(ignored)) {
      files.push_back(it->path().filename().string());
    }
  }
  return files;
}

// Folders in a folder that are named as models can be, by name.
std::map<std::string, std::string> FoldersIn(const fs::path& folder,
                                             std::error_code& error) {
  std::map<std::string, std::string> found;
  fs::directory_iterator it(folder, error);
  for (const fs::directory_iterator end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    const std::string name = it->path().filename().string();
    if (it->is_directory(ignored) && IsModelName(name)) {
      found[name] = it->path().string();
    }
  }
  return found;
}

// The versions in a folder that is no model's itself, newest first.
ModelFolder VersionsIn(const std::string& folder) {
  ModelFolder versions;
  std::error_code ignored;
  for (const auto& [name, path] : FoldersIn(folder, ignored)) {
    const int64_t version = VersionOf(name);
    if (version > 0 && IsModelFolder(FilesIn(path))) {
      versions.push_back({version, path});
    }
  }
  std::sort(versions.begin(), versions.end(),
            [](const VersionFolder& a, const VersionFolder& b) {
              return a.version > b.version;
            });
  return versions;
}

}  // namespace

int64_t VersionOf(const std::string& name) {
  int64_t version = 0;
  // The number must be its own spelling: no sign, no leading zeros.
  if (!absl::SimpleAtoi(name, &version) || version <= 0 ||
      absl::StrCat(version) != name) {
    return 0;
  }
  return version;
}

std::optional<std::pair<std::string, int64_t>> SplitVersionedName(
    const std::string& name) {
  const size_t at = name.rfind('@');
  if (at == std::string::npos || at == 0) return std::nullopt;
  const int64_t version = VersionOf(name.substr(at + 1));
  if (version == 0) return std::nullopt;
  return std::make_pair(name.substr(0, at), version);
}

bool IsModelFolder(const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    if (file == "config.json" || absl::EndsWith(file, ".safetensors")) {
      return true;
    }
  }
  return false;
}

bool IsModelName(const std::string& name) {
  if (name.empty() || name.size() > kMaxNameBytes || name[0] == '.') {
    return false;
  }
  for (const unsigned char byte : name) {
    if (byte < 0x20 || byte == 0x7F) return false;
  }
  return IsUtf8(name);
}

absl::StatusOr<std::map<std::string, ModelFolder>> FindModelFolders(
    const std::string& repository) {
  std::map<std::string, ModelFolder> found;
  std::error_code error;
  for (const auto& [name, path] : FoldersIn(repository, error)) {
    ModelFolder folder = IsModelFolder(FilesIn(path)) ? ModelFolder{{0, path}}
                                                      : VersionsIn(path);
    if (!folder.empty()) found[name] = std::move(folder);
  }
  if (error) {
    return MakeError(error == std::errc::no_such_file_or_directory
                         ? absl::StatusCode::kNotFound
                         : absl::StatusCode::kFailedPrecondition,
                     "REPOSITORY_UNREADABLE",
                     absl::StrCat("the model repository ", repository,
                                  " can't be read: ", error.message()));
  }
  return found;
}

std::string FolderFingerprint(const std::string& folder) {
  std::vector<std::string> files = FilesIn(folder);
  std::sort(files.begin(), files.end());
  std::string print;
  for (const std::string& file : files) {
    struct stat found = {};
    if (stat((folder + "/" + file).c_str(), &found) != 0) continue;
    absl::StrAppend(&print, file, "/", found.st_ino, "/", found.st_size, "/",
                    found.st_mtim.tv_sec, ".", found.st_mtim.tv_nsec, "\n");
  }
  return print;
}

}  // namespace limpid
