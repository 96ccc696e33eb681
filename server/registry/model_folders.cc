// SPDX-License-Identifier: Apache-2.0
#include "server/registry/model_folders.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
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

}  // namespace

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

absl::StatusOr<std::map<std::string, std::string>> FindModelFolders(
    const std::string& repository) {
  std::map<std::string, std::string> folders;
  std::error_code error;
  fs::directory_iterator it(repository, error);
  for (const fs::directory_iterator end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    const std::string name = it->path().filename().string();
    if (it->is_directory(ignored) && IsModelName(name) &&
        IsModelFolder(FilesIn(it->path()))) {
      folders[name] = it->path().string();
    }
  }
  if (error) {
    return MakeError(error == std::errc::no_such_file_or_directory
                         ? absl::StatusCode::kNotFound
                         : absl::StatusCode::kFailedPrecondition,
                     "REPOSITORY_UNREADABLE",
                     absl::StrCat("the model repository ", repository,
                                  " can't be read: ", error.message()));
  }
  return folders;
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
