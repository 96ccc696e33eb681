// SPDX-License-Identifier: Apache-2.0
#include "server/input/tokenizer.h"

#include "absl/strings/str_cat.h"
#include "server/base/mapped_file.h"
#include "server/input/byte_bpe.h"
#include "server/input/rwkv_world.h"
#include "server/input/sentencepiece.h"
#include "server/input/tokenizer_errors.h"

namespace limpid {
namespace {

using TokenizerPtr = std::shared_ptr<const Tokenizer>;

struct Format {
  const char* file;
  size_t max_bytes;
  absl::StatusOr<TokenizerPtr> (*make)(absl::string_view, const std::string&);
};

// In the order of preference.
constexpr Format kFormats[] = {
    {"tokenizer.json", 64 << 20, MakeByteBpe},
    {"tokenizer.model", 64 << 20, MakeSentencePiece},
    {"rwkv_vocab_v20230424.txt", 16 << 20, MakeRwkvWorld},
};

}  // namespace

absl::StatusOr<TokenizerPtr> Tokenizer::Open(const std::string& folder) {
  // A null pointer, or why a file was passed over.
  absl::StatusOr<TokenizerPtr> otherwise = TokenizerPtr();
  for (const Format& format : kFormats) {
    const std::string path = absl::StrCat(folder, "/", format.file);
    absl::StatusOr<std::string> bytes = ReadFile(path, format.max_bytes);
    if (absl::IsNotFound(bytes.status())) continue;
    if (!bytes.ok()) return TokenizerDamaged(path, bytes.status().message());
    absl::StatusOr<TokenizerPtr> made = format.make(*bytes, path);
    if (GetErrorDetails(made.status()).reason != "TOKENIZER_UNSUPPORTED") {
      return made;
    }
    if (otherwise.ok()) otherwise = std::move(made);
  }
  return otherwise;
}

}  // namespace limpid
