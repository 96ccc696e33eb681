// SPDX-License-Identifier: Apache-2.0
#include "server/checkpoint/safetensors.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/checkpoint/safetensors_header.h"

namespace limpid {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kLengthBytes = 8;

struct DTypeInfo {
  DType dtype;
  const char* name;
  int64_t bytes;
};
constexpr DTypeInfo kDTypes[] = {
    {DType::kFloat64, "F64", 8}, {DType::kFloat32, "F32", 4},
    {DType::kFloat16, "F16", 2}, {DType::kBFloat16, "BF16", 2},
    {DType::kInt64, "I64", 8},   {DType::kInt32, "I32", 4},
    {DType::kInt16, "I16", 2},   {DType::kInt8, "I8", 1},
    {DType::kUint8, "U8", 1},    {DType::kBool, "BOOL", 1},
};

const DTypeInfo& Info(DType dtype) {
  return *std::find_if(std::begin(kDTypes), std::end(kDTypes),
                       [&](const DTypeInfo& i) { return i.dtype == dtype; });
}

// A name fit for a message: a damaged file may hold one of any length.
std::string Shown(const std::string& name) {
  constexpr size_t kLimit = 200;
  if (name.size() <= kLimit) return absl::Utf8SafeCEscape(name);
  size_t cut = kLimit;
  while (cut > 0 && (name[cut] & 0xC0) == 0x80) --cut;
  return absl::StrCat(absl::Utf8SafeCEscape(name.substr(0, cut)), "...");
}

absl::Status Damaged(const std::string& path, const Damage& damage) {
  ErrorDetails details;
  details.reason = "CHECKPOINT_DAMAGED";
  details.metadata["file"] = path;
  std::string message = path;
  if (!damage.tensor.empty()) {
    const std::string name = Shown(damage.tensor);
    details.metadata["tensor"] = name;
    absl::StrAppend(&message, ": tensor ", name);
  }
  absl::StrAppend(&message, ": ", absl::CEscape(damage.what));
  return MakeError(absl::StatusCode::kDataLoss, message, std::move(details));
}

// Whether shape, dtype and offsets agree.
bool CheckSize(const TensorEntry& entry, std::string& what) {
  uint64_t bytes = Info(entry.dtype).bytes;
  for (const int64_t size : entry.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
      what = absl::StrCat("the shape [", absl::StrJoin(entry.shape, ", "),
                          "] is too large");
      return false;
    }
  }
  if (entry.begin > entry.end) {
    what = absl::StrCat("its bytes end at ", entry.end,
                        " before they begin at ", entry.begin);
    return false;
  }
  if (entry.end - entry.begin != bytes) {
    what = absl::StrCat("shape [", absl::StrJoin(entry.shape, ", "), "] of ",
                        Info(entry.dtype).name, " needs ", bytes,
                        " bytes, the offsets give ", entry.end - entry.begin);
    return false;
  }
  return true;
}

// Whether the tensors cover the bytes behind the header without gap or overlap.
bool CheckLayout(const SafetensorsHeader& header, uint64_t data_bytes,
                 Damage& damage) {
  using Item = std::pair<const std::string, TensorEntry>;
  std::vector<const Item*> order;
  order.reserve(header.tensors.size());
  for (const Item& item : header.tensors) {
    damage.tensor = item.first;
    if (!CheckSize(item.second, damage.what)) return false;
    if (item.second.end > data_bytes) {
      damage.what =
          absl::StrCat("its bytes end at ", item.second.end, ", the file has ",
                       data_bytes, " behind its header: it is cut short");
      return false;
    }
    order.push_back(&item);
  }
  std::sort(order.begin(), order.end(), [](const Item* a, const Item* b) {
    return std::pair(a->second.begin, a->second.end) <
           std::pair(b->second.begin, b->second.end);
  });
  uint64_t covered = 0;
  for (const Item* item : order) {
    if (item->second.begin != covered) {
      damage.tensor = item->first;
      damage.what =
          item->second.begin < covered
              ? "its bytes overlap another tensor's"
              : absl::StrCat("there is a hole of ",
                             item->second.begin - covered, " bytes before it");
      return false;
    }
    covered = item->second.end;
  }
  if (covered != data_bytes) {
    damage.tensor.clear();
    damage.what = absl::StrCat(data_bytes - covered,
                               " bytes behind the last tensor belong to none");
    return false;
  }
  return true;
}

}  // namespace

int64_t ElementBytes(DType dtype) { return Info(dtype).bytes; }

absl::string_view DTypeName(DType dtype) { return Info(dtype).name; }

bool DTypeFromName(absl::string_view name, DType& dtype) {
  for (const DTypeInfo& info : kDTypes) {
    if (name == info.name) {
      dtype = info.dtype;
      return true;
    }
  }
  return false;
}

int64_t TensorView::num_elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  LIMPID_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  const std::span<const std::byte> bytes = mapped.bytes();
  if (bytes.size() < kLengthBytes) {
    return Damaged(path, {absl::StrCat("only ", bytes.size(),
                                       " bytes: too short for a header"),
                          ""});
  }
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    header_bytes |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  }
  if (header_bytes > kMaxHeaderBytes) {
    return Damaged(
        path, {absl::StrCat("a header of ", header_bytes, " bytes, at most ",
                            kMaxHeaderBytes, " are allowed"),
               ""});
  }
  if (header_bytes > bytes.size() - kLengthBytes) {
    return Damaged(path, {absl::StrCat("the header of ", header_bytes,
                                       " bytes is longer than the file"),
                          ""});
  }
  const absl::string_view text(
      reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, header_bytes);
  const std::span<const std::byte> data =
      bytes.subspan(kLengthBytes + header_bytes);
  SafetensorsHeader header;
  Damage damage;
  if (!ParseSafetensorsHeader(text, header, damage) ||
      !CheckLayout(header, data.size(), damage)) {
    return Damaged(path, damage);
  }
  SafetensorsFile file(std::move(mapped));
  file.metadata_ = std::move(header.metadata);
  for (auto& [name, entry] : header.tensors) {
    TensorView& view = file.tensors_[name];
    view.dtype = entry.dtype;
    view.shape = std::move(entry.shape);
    view.data = data.subspan(entry.begin, entry.end - entry.begin);
  }
  return file;
}

}  // namespace limpid
