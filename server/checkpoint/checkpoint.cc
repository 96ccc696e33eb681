// SPDX-License-Identifier: Apache-2.0
#include "server/checkpoint/checkpoint.h"

#include <openssl/evp.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/json_guard.h"

namespace limpid {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr char kConfig[] = "config.json";
constexpr char kWeights[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr const char* kTokenizers[] = {"rwkv_vocab_v20230424.txt",
                                       "tokenizer.json", "tokenizer.model"};
constexpr size_t kMaxConfigBytes = 16 << 20;
constexpr size_t kMaxIndexBytes = 64 << 20;
constexpr int kMaxDepth = 64;
constexpr int64_t kMaxValues = 4'000'000;

std::string Join(const std::string& folder, absl::string_view name) {
  return absl::StrCat(folder, "/", name);
}

absl::Status Damaged(const std::string& path, absl::string_view what,
                     const std::string& tensor = "") {
  ErrorDetails details;
  details.reason = "CHECKPOINT_DAMAGED";
  details.metadata["file"] = path;
  std::string message = path;
  if (!tensor.empty()) {
    const std::string shown = absl::CEscape(tensor.substr(0, 200));
    details.metadata["tensor"] = shown;
    absl::StrAppend(&message, ": tensor ", shown);
  }
  absl::StrAppend(&message, ": ", what);
  return MakeError(absl::StatusCode::kDataLoss, message, std::move(details));
}

absl::Status Missing(const std::string& folder, absl::string_view what) {
  ErrorDetails details;
  details.reason = "CHECKPOINT_MISSING";
  details.metadata["file"] = folder;
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat(folder, ": ", what), std::move(details));
}

// Why a folder has no weights that can be read.
absl::Status NoWeights(const std::string& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return Missing(folder, "no such model folder");
  }
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!absl::EndsWith(name, ".bin") && !absl::EndsWith(name, ".pt") &&
        !absl::EndsWith(name, ".pth") && !absl::EndsWith(name, ".ckpt")) {
      continue;
    }
    ErrorDetails details;
    details.reason = "CHECKPOINT_IS_PICKLE";
    details.metadata["file"] = Join(folder, name);
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat(Join(folder, name),
                     ": the weights are a pickle, which can run code when it "
                     "is read; convert them to ",
                     kWeights),
        std::move(details));
  }
  return Missing(folder, absl::StrCat("neither ", kWeights, " nor ", kIndex));
}

bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name.find("..") == std::string::npos &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

// Tensor to shard, as the index tells.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(
    const std::string& path) {
  LIMPID_ASSIGN_OR_RETURN(std::string text, ReadFile(path, kMaxIndexBytes));
  if (!IsTameJson(text, kMaxDepth, kMaxValues)) {
    return Damaged(path, "nested too deep, too many values, or a NUL byte");
  }
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Damaged(path, "not a JSON object");
  const auto weights = json.find("weight_map");
  if (weights == json.end() || !weights->is_object() || weights->empty()) {
    return Damaged(path, "\"weight_map\" is missing, empty or not an object");
  }
  std::map<std::string, std::string> out;
  for (const auto& [tensor, shard] : weights->items()) {
    if (!shard.is_string()) {
      return Damaged(path, "its shard is not a string", tensor);
    }
    const std::string& name = shard.get_ref<const std::string&>();
    if (!IsPlainFileName(name)) {
      return Damaged(
          path,
          absl::StrCat("its shard \"", absl::CEscape(name.substr(0, 200)),
                       "\" is not a plain file name"),
          tensor);
    }
    out[tensor] = name;
  }
  return out;
}

// SHA-256 of named pieces. Names and sizes are hashed too, so that bytes can't
// move from one piece to the next unnoticed.
class Hasher {
 public:
  Hasher() : context_(EVP_MD_CTX_new()) {
    ok_ = context_ != nullptr &&
          EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1;
  }
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  ~Hasher() { EVP_MD_CTX_free(context_); }

  void Add(absl::string_view name, const void* data, uint64_t size) {
    char length[8];
    for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(size >> (8 * i));
    Update(name.data(), name.size());
    Update("", 1);
    Update(length, sizeof(length));
    Update(data, size);
  }

  absl::StatusOr<std::string> Finish() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    ok_ = ok_ && EVP_DigestFinal_ex(context_, digest, &size) == 1;
    if (!ok_) return absl::InternalError("SHA-256 is not available");
    return absl::BytesToHexString(
        absl::string_view(reinterpret_cast<const char*>(digest), size));
  }

 private:
  void Update(const void* data, size_t size) {
    ok_ = ok_ && (size == 0 || EVP_DigestUpdate(context_, data, size) == 1);
  }
  EVP_MD_CTX* context_;
  bool ok_ = false;
};

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& folder) {
  Checkpoint out;
  out.folder_ = folder;
  std::map<std::string, std::string> shard_of;
  std::error_code error;
  const bool single = fs::exists(Join(folder, kWeights), error);
  if (single) {
    LIMPID_ASSIGN_OR_RETURN(SafetensorsFile file,
                            SafetensorsFile::Open(Join(folder, kWeights)));
    out.files_.emplace(kWeights, std::move(file));
  } else if (fs::exists(Join(folder, kIndex), error)) {
    LIMPID_ASSIGN_OR_RETURN(shard_of, ReadIndex(Join(folder, kIndex)));
  } else {
    return NoWeights(folder);
  }

  absl::StatusOr<std::string> config =
      ReadFile(Join(folder, kConfig), kMaxConfigBytes);
  if (absl::IsNotFound(config.status())) {
    return Missing(folder, absl::StrCat("no ", kConfig));
  }
  if (!config.ok()) return config.status();
  out.config_ = *std::move(config);

  for (const auto& [tensor, shard] : shard_of) {
    if (out.files_.count(shard) > 0) continue;
    const std::string path = Join(folder, shard);
    absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path);
    if (absl::IsNotFound(file.status())) {
      return Damaged(path, absl::StrCat("the shard is missing, ", kIndex,
                                        " names it for ", tensor));
    }
    if (!file.ok()) return file.status();
    out.files_.emplace(shard, *std::move(file));
  }
  for (const auto& [name, file] : out.files_) {
    for (const auto& [tensor, view] : file.tensors()) {
      const auto [other, is_new] = out.file_of_.emplace(tensor, name);
      if (!is_new) {
        return Damaged(Join(folder, name),
                       absl::StrCat("is in ", other->second, " too"), tensor);
      }
      if (!single && shard_of.count(tensor) == 0) {
        return Damaged(Join(folder, name), absl::StrCat("is not in ", kIndex),
                       tensor);
      }
      out.tensors_.emplace(tensor, view);
    }
  }
  for (const auto& [tensor, shard] : shard_of) {
    if (out.FileOf(tensor) != shard) {
      return Damaged(
          Join(folder, shard),
          absl::StrCat("is not in the file, though ", kIndex, " says so"),
          tensor);
    }
  }
  return out;
}

const std::string& Checkpoint::FileOf(const std::string& tensor) const {
  static const std::string* const nowhere = new std::string;
  const auto found = file_of_.find(tensor);
  return found == file_of_.end() ? *nowhere : found->second;
}

absl::StatusOr<std::string> Checkpoint::Digest() const {
  Hasher hasher;
  hasher.Add(kConfig, config_.data(), config_.size());
  for (const auto& [name, file] : files_) {
    hasher.Add(name, file.bytes().data(), file.bytes().size());
  }
  for (const char* name : kTokenizers) {
    absl::StatusOr<MappedFile> file = MappedFile::Open(Join(folder_, name));
    if (absl::IsNotFound(file.status())) continue;
    if (!file.ok()) return file.status();
    hasher.Add(name, file->bytes().data(), file->bytes().size());
  }
  return hasher.Finish();
}

}  // namespace limpid
