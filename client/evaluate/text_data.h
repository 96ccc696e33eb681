// SPDX-License-Identifier: Apache-2.0
//
// Sentences and word ratings, as files hold them. Errors are INVALID_ARGUMENT
// and name the line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "limpid/v1/explanation.pb.h"

namespace limpid::evaluate {

struct Sentence {
  std::string text;
  std::optional<int64_t> label;  // token of the true class
};

// One {"text": ..., "label": TOKEN} per line; "label" may be missing, other
// keys are ignored. At most `limit` sentences.
absl::StatusOr<std::vector<Sentence>> ParseSentences(absl::string_view lines,
                                                     size_t limit);

// Lines of a word in lower case, a tab, and its rating.
absl::StatusOr<std::map<std::string, double>> ParseRatings(
    absl::string_view lines);

// A word of a text and the tokens that make it up.
struct Word {
  std::string text;  // lower case, without what is no letter or digit at its
                     // ends
  std::vector<size_t> tokens;
};

// Runs of bytes without white space that hold a letter or digit. A token
// belongs to the run in which its first byte that is no white space lies.
std::vector<Word> SplitWords(absl::string_view text,
                             std::span<const v1::Token> tokens);

}  // namespace limpid::evaluate
