// SPDX-License-Identifier: Apache-2.0
//
// A regular expression of a tokenizer.json, by which it cuts texts.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid {

// A compiled expression. Immutable and thread-safe. Classes such as \p{L}
// follow the Unicode version of the PCRE2 library.
class SplitRegex {
 public:
  // INVALID_ARGUMENT if the expression is not understood, or can match nothing
  // at all, where libraries differ in what they do next.
  static absl::StatusOr<SplitRegex> Create(const std::string& pattern);

  SplitRegex(SplitRegex&&) noexcept;
  SplitRegex& operator=(SplitRegex&&) noexcept;
  ~SplitRegex();

  // Byte ranges [begin, end) of the matches in `text`, which must be UTF-8.
  // RESOURCE_EXHAUSTED where matching takes too much work.
  absl::StatusOr<std::vector<std::pair<size_t, size_t>>> FindAll(
      absl::string_view text) const;

 private:
  struct Impl;
  explicit SplitRegex(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace limpid
