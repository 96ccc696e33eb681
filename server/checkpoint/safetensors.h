// SPDX-License-Identifier: Apache-2.0
//
// Reads and writes safetensors files: an 8-byte little-endian header length, a
// JSON header, and the tensors' bytes. Depends on server/base only, so that the
// client can use it too.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/mapped_file.h"
#include "server/base/status.h"

namespace limpid {

enum class DType {
  kFloat64,
  kFloat32,
  kFloat16,
  kBFloat16,
  kInt64,
  kInt32,
  kInt16,
  kInt8,
  kUint8,
  kBool
};

// Size of one element in bytes.
int64_t ElementBytes(DType dtype);
// Name as in the file, for example "BF16".
absl::string_view DTypeName(DType dtype);

// A tensor whose elements are elsewhere: little-endian, row-major.
struct TensorView {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  // Not aligned to the element size in general.
  std::span<const std::byte> data;

  int64_t num_elements() const;
};

// A safetensors file mapped into memory. Immutable and thread-safe.
class SafetensorsFile {
 public:
  // Every way in which the file can be damaged is DATA_LOSS with reason
  // CHECKPOINT_DAMAGED and metadata "file" and, where one is to blame,
  // "tensor": truncated, header longer than 100 MB or than the file, header
  // that is not UTF-8 JSON, duplicate names, unknown dtype, shape whose product
  // overflows or does not match the bytes, overlapping tensors, holes between
  // them, bytes behind the last one. Files that can't be opened: as MappedFile.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  // Views live as long as this object.
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  // The strings under "__metadata__".
  const std::map<std::string, std::string>& metadata() const {
    return metadata_;
  }
  // All bytes of the file, for digests.
  std::span<const std::byte> bytes() const { return file_.bytes(); }

 private:
  explicit SafetensorsFile(MappedFile file) : file_(std::move(file)) {}
  MappedFile file_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes a file with the tensors in the order of their names. The file appears
// under its name only once it is complete. Errors name the path.
absl::Status WriteSafetensors(
    const std::string& path, const std::map<std::string, TensorView>& tensors,
    const std::map<std::string, std::string>& metadata);

}  // namespace limpid
