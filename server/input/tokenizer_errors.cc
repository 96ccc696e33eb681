// SPDX-License-Identifier: Apache-2.0
#include "server/input/tokenizer_errors.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/input/unicode.h"

namespace limpid {
namespace {

// Positions are kept in 32 bits.
constexpr size_t kMaxTextBytes = size_t{1} << 30;

}  // namespace

absl::Status TokenizerDamaged(const std::string& file, absl::string_view what) {
  ErrorDetails details;
  details.reason = "TOKENIZER_DAMAGED";
  details.metadata["file"] = file;
  return MakeError(absl::StatusCode::kDataLoss, absl::StrCat(file, ": ", what),
                   std::move(details));
}

absl::Status TokenizerUnsupported(const std::string& file,
                                  const std::string& part,
                                  absl::string_view what) {
  ErrorDetails details;
  details.reason = "TOKENIZER_UNSUPPORTED";
  details.metadata["file"] = file;
  details.metadata["part"] = part;
  return MakeError(
      absl::StatusCode::kDataLoss,
      absl::StrCat(file, ": ", part, ": ", what,
                   " is not supported; only byte-level BPE (tokenizer.json), "
                   "SentencePiece BPE (tokenizer.model) and RWKV World are"),
      std::move(details));
}

absl::Status TextInvalid(size_t offset, absl::string_view what) {
  ErrorDetails details;
  details.reason = "TEXT_INVALID";
  details.violations.push_back(
      {"input.text", absl::StrCat("byte ", offset, ": ", what)});
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("input.text: byte ", offset, ": ", what),
                   std::move(details));
}

absl::Status CheckText(absl::string_view text) {
  if (text.size() > kMaxTextBytes) {
    return TextInvalid(kMaxTextBytes,
                       "the text is longer than a tokenizer takes");
  }
  if (const size_t bad = FirstBadUtf8(text); bad < text.size()) {
    return TextInvalid(bad, "not UTF-8");
  }
  return absl::OkStatus();
}

}  // namespace limpid
