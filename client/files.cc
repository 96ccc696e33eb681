// SPDX-License-Identifier: Apache-2.0
#include "client/files.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

struct Closer {
  void operator()(FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<FILE, Closer>;

absl::Status Problem(absl::string_view what, const std::string& path,
                     int error) {
  return absl::FailedPreconditionError(
      absl::StrCat("cannot ", what, " ", path, ": ", std::strerror(error)));
}

absl::Status WriteTo(const std::string& path, const std::string& shown,
                     absl::string_view bytes) {
  File file(std::fopen(path.c_str(), "wb"));
  if (!file) return Problem("write", shown, errno);
  if (std::fwrite(bytes.data(), 1, bytes.size(), file.get()) != bytes.size()) {
    return Problem("write", shown, errno);
  }
  // What was buffered may fail only now.
  if (std::fclose(file.release()) != 0) return Problem("write", shown, errno);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadWholeFile(const std::string& path) {
  File opened(path == "-" ? nullptr : std::fopen(path.c_str(), "rb"));
  if (path != "-" && !opened) return Problem("read", path, errno);
  FILE* file = path == "-" ? stdin : opened.get();
  std::string bytes;
  char buffer[65536];
  size_t count = 0;
  while ((count = std::fread(buffer, 1, sizeof(buffer), file)) > 0) {
    bytes.append(buffer, count);
  }
  if (std::ferror(file)) return Problem("read", path, errno);
  return bytes;
}

absl::Status WriteWholeFile(const std::string& path, absl::string_view bytes) {
  std::error_code ignored;
  const auto kind = std::filesystem::status(path, ignored).type();
  if (kind != std::filesystem::file_type::not_found &&
      kind != std::filesystem::file_type::regular) {
    return WriteTo(path, path, bytes);
  }
  const std::string temporary = absl::StrCat(path, ".", ::getpid(), ".tmp");
  absl::Status status = WriteTo(temporary, path, bytes);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0) {
    status = Problem("write", path, errno);
  }
  if (!status.ok()) std::remove(temporary.c_str());
  return status;
}

absl::Status MakeFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return Problem("make the folder", path, error.value());
  return absl::OkStatus();
}

}  // namespace limpid
