// SPDX-License-Identifier: Apache-2.0
//
// Cuts a text into the words inside which byte pairs are merged.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"
#include "server/input/split_regex.h"

namespace limpid {

// Bytes [begin, end) of a text.
struct Word {
  size_t begin = 0;
  size_t end = 0;
  // A space that is not in the text stands before it.
  bool space_before = false;
};

// One step of a "Sequence" before its last.
struct SplitStep {
  enum class Kind { kRegex, kLiteral, kDigits };
  Kind kind = Kind::kDigits;
  std::vector<SplitRegex> regex;  // One, for kRegex.
  std::string literal;
  // What matches is left out, otherwise it is a part of its own.
  bool remove = false;
  // The matches are what does not match.
  bool invert = false;
  // kDigits: every digit by itself, otherwise runs of digits.
  bool individual_digits = false;
};

// "ByteLevel" with the steps before it. Immutable and thread-safe.
class Pretokenizer {
 public:
  struct Options {
    std::vector<SplitStep> steps;
    bool add_prefix_space = false;
    // Cut at words as GPT-2 does.
    bool use_regex = true;
  };
  explicit Pretokenizer(Options options) : options_(std::move(options)) {}

  // Words of a UTF-8 text, in order. Without steps it can't fail, and its time
  // is linear in the text's length.
  absl::StatusOr<std::vector<Word>> Split(absl::string_view text) const;

 private:
  Options options_;
};

}  // namespace limpid
