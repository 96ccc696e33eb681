// SPDX-License-Identifier: Apache-2.0
#include "server/input/tokenizer.h"

#include "absl/strings/str_cat.h"
#include "server/base/mapped_file.h"
#include "server/input/byte_bpe.h"
#include "server/input/json_part.h"

namespace limpid {
namespace {

constexpr size_t kMaxFileBytes = 64 << 20;

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Open(
    const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/tokenizer.json");
  absl::StatusOr<std::string> json = ReadFile(path, kMaxFileBytes);
  if (absl::IsNotFound(json.status())) {
    return std::shared_ptr<const Tokenizer>();
  }
  if (!json.ok()) return TokenizerDamaged(path, json.status().message());
  return MakeByteBpe(*json, path);
}

}  // namespace limpid
