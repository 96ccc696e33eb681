// SPDX-License-Identifier: Apache-2.0
#include "server/base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

absl::Status FileError(absl::StatusCode code, absl::string_view reason,
                       const std::string& path, absl::string_view what) {
  ErrorDetails details;
  details.reason = std::string(reason);
  details.metadata["file"] = path;
  return MakeError(code, absl::StrCat(path, ": ", what), std::move(details));
}

absl::Status DamagedFile(const std::string& path, absl::string_view what) {
  return FileError(absl::StatusCode::kDataLoss, "FILE_UNREADABLE", path, what);
}

absl::Status OpenError(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP:
      return FileError(absl::StatusCode::kNotFound, "FILE_NOT_FOUND", path,
                       std::strerror(error));
    case EACCES:
    case EPERM:
      return FileError(absl::StatusCode::kPermissionDenied, "FILE_FORBIDDEN",
                       path, std::strerror(error));
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return FileError(absl::StatusCode::kResourceExhausted,
                       "FILE_LIMIT_REACHED", path, std::strerror(error));
    default:
      return DamagedFile(path, std::strerror(error));
  }
}

// A file descriptor that closes itself.
struct Descriptor {
  int value = -1;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

// Opens a regular file for reading and tells its size.
absl::Status OpenRegular(const std::string& path, Descriptor& file,
                         size_t& size) {
  if (path.find('\0') != std::string::npos) return OpenError(path, ENOENT);
  // Without O_NONBLOCK a named pipe in the repository would block for ever.
  file.value = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.value < 0) return OpenError(path, errno);
  struct stat info;
  if (::fstat(file.value, &info) != 0) return OpenError(path, errno);
  if (!S_ISREG(info.st_mode)) return DamagedFile(path, "not a regular file");
  size = static_cast<size_t>(info.st_size);
  return absl::OkStatus();
}

void Unmap(std::span<const std::byte> bytes) {
  if (!bytes.empty()) {
    ::munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
  }
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  Descriptor file;
  size_t size = 0;
  LIMPID_RETURN_IF_ERROR(OpenRegular(path, file, size));
  if (size == 0) return MappedFile(std::span<const std::byte>());
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value, 0);
  if (start == MAP_FAILED) {
    return DamagedFile(
        path, absl::StrCat("cannot be mapped: ", std::strerror(errno)));
  }
  return MappedFile(
      std::span<const std::byte>(static_cast<const std::byte*>(start), size));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    Unmap(bytes_);
    bytes_ = std::exchange(other.bytes_, {});
  }
  return *this;
}

MappedFile::~MappedFile() { Unmap(bytes_); }

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     size_t limit_bytes) {
  Descriptor file;
  size_t size = 0;
  LIMPID_RETURN_IF_ERROR(OpenRegular(path, file, size));
  // The file may grow or shrink meanwhile, and files of /proc claim size 0:
  // what counts is what can be read.
  std::string text;
  char buffer[1 << 16];
  while (size <= limit_bytes && text.size() <= limit_bytes) {
    const ssize_t got = ::read(file.value, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return DamagedFile(path, std::strerror(errno));
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
  }
  return DamagedFile(
      path, absl::StrCat("longer than the ", limit_bytes, " bytes allowed"));
}

}  // namespace limpid
