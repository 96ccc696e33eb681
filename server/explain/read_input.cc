// SPDX-License-Identifier: Apache-2.0
#include "server/explain/read_input.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace limpid {
namespace {

// Bytes of text per token beyond which a text can't fit the limit whatever the
// tokenizer does with it; spares the tokenizer hopeless work.
constexpr int64_t kMostBytesPerToken = 256;

void CheckLength(const char* field, int64_t length, int64_t limit,
                 Violations& violations) {
  if (length > limit) {
    violations.Add(
        field, absl::StrCat("has ", length, " tokens, the limit is ", limit));
  }
}

// Adds the violations of a status that has some; otherwise returns it.
absl::Status MoveViolations(const absl::Status& status,
                            Violations& violations) {
  const ErrorDetails details = GetErrorDetails(status);
  if (details.violations.empty()) return status;
  for (const FieldViolation& violation : details.violations) {
    violations.Add(violation.field, violation.description);
  }
  return absl::OkStatus();
}

absl::Status ReadText(const std::string& text, const Servable& model,
                      int64_t max_tokens, Violations& violations,
                      ReadResult& out) {
  if (!model.tokenizer()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "TOKENIZER_MISSING",
                     absl::StrCat("model ", model.info().name,
                                  " has no tokenizer; send token ids"));
  }
  const int64_t bytes = static_cast<int64_t>(text.size());
  if (bytes == 0) {
    violations.Add("input.text", "is empty, must have at least 1 byte");
    return absl::OkStatus();
  }
  if (bytes > max_tokens * kMostBytesPerToken) {
    violations.Add("input.text",
                   absl::StrCat("has ", bytes, " bytes, too long for ",
                                max_tokens, " tokens"));
    return absl::OkStatus();
  }
  auto encoded = model.tokenizer()->Encode(text);
  if (!encoded.ok()) return MoveViolations(encoded.status(), violations);
  out.tokens = *std::move(encoded);
  CheckLength("input.text", out.tokens.size(), max_tokens, violations);
  return absl::OkStatus();
}

void ReadTokens(const std::vector<int64_t>& ids, const ModelInfo& info,
                int64_t max_tokens, Violations& violations, ReadResult& out) {
  if (ids.empty()) {
    violations.Add("input.tokens.ids", "is empty, must have at least 1 id");
  }
  CheckLength("input.tokens.ids", ids.size(), max_tokens, violations);
  const int64_t vocabulary = info.vocabulary_size;
  constexpr int kShown = 20;
  int wrong = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const int64_t id = ids[i];
    out.tokens.push_back({id, 0, 0});
    if (id >= 0 && id < vocabulary) continue;
    if (++wrong <= kShown) {
      violations.Add(absl::StrCat("input.tokens.ids[", i, "]"),
                     absl::StrCat("token id ", id, ", must be from 0 to ",
                                  vocabulary - 1));
    }
  }
  if (wrong > kShown) {
    violations.Add("input.tokens.ids",
                   absl::StrCat(wrong - kShown, " more are out of range"));
  }
}

}  // namespace

absl::StatusOr<ReadResult> ReadInput(const Input& input, const Servable& model,
                                     int64_t max_tokens,
                                     Violations& violations) {
  const ModelInfo& info = model.info();
  const bool has_words = std::holds_alternative<TextInput>(input) ||
                         std::holds_alternative<TokenInput>(input);
  if (has_words != (info.modality == Modality::kText)) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "WRONG_MODALITY",
                     absl::StrCat("model ", info.name,
                                  has_words ? " reads pictures, not text"
                                            : " reads text, not pictures"));
  }
  ReadResult out;
  if (has_words) {
    if (const auto* text = std::get_if<TextInput>(&input)) {
      LIMPID_RETURN_IF_ERROR(
          ReadText(text->text, model, max_tokens, violations, out));
    } else {
      ReadTokens(std::get<TokenInput>(input).ids, info, max_tokens, violations,
                 out);
    }
    out.length = static_cast<int64_t>(out.tokens.size());
    return out;
  }
  out.length = info.grid_rows * info.grid_columns + 1;
  if (const auto* image = std::get_if<ImageInput>(&input)) {
    auto pixels = model.images()->Process(image->bytes);
    if (!pixels.ok()) {
      LIMPID_RETURN_IF_ERROR(MoveViolations(pixels.status(), violations));
      return out;
    }
    out.pixels = std::move(pixels->values);
    return out;
  }
  const PixelInput& given = std::get<PixelInput>(input);
  const std::vector<int64_t> shape = {3, info.image_height, info.image_width};
  if (given.shape != shape) {
    violations.Add(
        "input.pixels",
        absl::StrCat("has shape [", absl::StrJoin(given.shape, ", "),
                     "], the model reads [", absl::StrJoin(shape, ", "), "]"));
  }
  out.pixels = given.values;
  return out;
}

}  // namespace limpid
