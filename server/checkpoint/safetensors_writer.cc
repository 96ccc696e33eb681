// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/safetensors.h"

namespace limpid {
namespace {

absl::Status WriteError(const std::string& path, absl::string_view step,
                        int error) {
  ErrorDetails details;
  details.reason = "FILE_NOT_WRITTEN";
  details.metadata["file"] = path;
  absl::StatusCode code = absl::StatusCode::kInternal;
  if (error == ENOENT || error == ENOTDIR) code = absl::StatusCode::kNotFound;
  if (error == EACCES || error == EPERM || error == EROFS) {
    code = absl::StatusCode::kPermissionDenied;
  }
  if (error == ENOSPC || error == EDQUOT) {
    code = absl::StatusCode::kResourceExhausted;
  }
  return MakeError(
      code, absl::StrCat(path, ": cannot ", step, ": ", std::strerror(error)),
      std::move(details));
}

absl::Status BadTensor(const std::string& path, const std::string& name,
                       absl::string_view what) {
  ErrorDetails details;
  details.reason = "TENSOR_INVALID";
  details.metadata["file"] = path;
  details.metadata["tensor"] = name;
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(path, ": tensor ", name, ": ", what),
                   std::move(details));
}

// A new file that is removed unless it is published under its final name.
class PendingFile {
 public:
  explicit PendingFile(std::string path) : path_(std::move(path)) {}
  ~PendingFile() {
    if (file_ >= 0) ::close(file_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  absl::Status Create() {
    static std::atomic<uint64_t> counter{0};
    std::string name =
        absl::StrCat(path_, ".", ::getpid(), ".", counter.fetch_add(1), ".tmp");
    file_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file_ < 0) return WriteError(path_, "create the file", errno);
    temporary_ = std::move(name);
    return absl::OkStatus();
  }

  absl::Status Write(const void* data, size_t size) {
    const char* next = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t done = ::write(file_, next, size);
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) return WriteError(path_, "write", errno);
      next += done;
      size -= static_cast<size_t>(done);
    }
    return absl::OkStatus();
  }

  absl::Status Publish() {
    // Some file systems report a full disk only here.
    if (::close(std::exchange(file_, -1)) != 0) {
      return WriteError(path_, "write", errno);
    }
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
      return WriteError(path_, "give the file its name", errno);
    }
    temporary_.clear();
    return absl::OkStatus();
  }

 private:
  std::string path_;
  std::string temporary_;  // Empty once there is nothing to remove.
  int file_ = -1;
};

}  // namespace

absl::Status WriteSafetensors(
    const std::string& path, const std::map<std::string, TensorView>& tensors,
    const std::map<std::string, std::string>& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const auto& [name, view] : tensors) {
    if (name == "__metadata__") {
      return BadTensor(path, name, "the format reserves this name");
    }
    uint64_t bytes = ElementBytes(view.dtype);
    for (const int64_t size : view.shape) {
      if (size < 0 ||
          __builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
        return BadTensor(path, name, "negative or too large shape");
      }
    }
    if (bytes != view.data.size()) {
      return BadTensor(path, name,
                       absl::StrCat("the shape needs ", bytes, " bytes, ",
                                    view.data.size(), " are given"));
    }
    header[name] = {{"dtype", std::string(DTypeName(view.dtype))},
                    {"shape", view.shape},
                    {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const std::exception&) {
    return BadTensor(path, "", "a name or the metadata is not UTF-8");
  }
  // Padded, so that the tensors' bytes start aligned.
  text.append((8 - text.size() % 8) % 8, ' ');
  char length[8];
  for (int i = 0; i < 8; ++i) {
    length[i] = static_cast<char>(uint64_t{text.size()} >> (8 * i));
  }

  PendingFile file(path);
  LIMPID_RETURN_IF_ERROR(file.Create());
  LIMPID_RETURN_IF_ERROR(file.Write(length, sizeof(length)));
  LIMPID_RETURN_IF_ERROR(file.Write(text.data(), text.size()));
  for (const auto& [name, view] : tensors) {
    LIMPID_RETURN_IF_ERROR(file.Write(view.data.data(), view.data.size()));
  }
  return file.Publish();
}

}  // namespace limpid
