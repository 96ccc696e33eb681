// SPDX-License-Identifier: Apache-2.0
//
// A file's bytes in memory without reading them all.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "server/base/status.h"

namespace limpid {

// A read-only memory map of a whole file, unmapped when it is destroyed.
// Movable. Thread-safe once made. A file that is cut short while it is mapped
// raises SIGBUS on access: the repository's files must not be truncated in
// place while a model loads.
class MappedFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED (too many open files) or
  // DATA_LOSS (not a regular file, or it can not be mapped), naming the path in
  // the message and under "file". An empty file gives an empty span.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  // Valid while this object lives.
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

// The whole of a file of at most `limit_bytes`; errors as MappedFile::Open, and
// DATA_LOSS if it is longer.
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     size_t limit_bytes);

}  // namespace limpid
