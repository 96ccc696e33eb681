// SPDX-License-Identifier: Apache-2.0
//
// What SentencePiece does to a text before it looks for pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"
#include "server/input/byte_trie.h"
#include "server/input/sentencepiece_model.h"

namespace limpid {

// A text's normal form and, for each of its bytes, the bytes [begin, end) of
// the text that it stands for. The bytes that one character became share them.
// Together they cover the text: what is left out belongs to its neighbour on
// the left, or on the right at the text's begin.
struct NormalizedText {
  std::string text;
  std::vector<uint32_t> begin, end;
};

// The map of characters in a model's normalizer_spec.precompiled_charsmap: a
// double array of 32-bit units, then the replacements. Immutable and
// thread-safe.
class CharacterMap {
 public:
  struct Match {
    absl::string_view replacement;
    size_t length = 0;  // 0 if no key matches.
  };

  // A map that changes nothing.
  CharacterMap() = default;
  // INVALID_ARGUMENT saying what is wrong with it.
  static absl::StatusOr<CharacterMap> Create(absl::string_view map);

  // The longest key at `position`. Bounded time.
  Match Longest(absl::string_view text, size_t position) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;  // Each ends with NUL.
};

// Immutable and thread-safe.
class SentencePieceNormalizer {
 public:
  // `map` is made of the model's. `user_symbols` are the pieces that stay as
  // they are; they must outlive this object.
  SentencePieceNormalizer(const SentencePieceModel& model, CharacterMap map,
                          const ByteTrie* user_symbols);

  // `text` must be UTF-8. `out` is empty if the text is all white space that is
  // to be left out. False if the normal form is too long to be counted.
  bool Normalize(absl::string_view text, NormalizedText& out) const;

 private:
  // What stands for the text's next characters, and how many bytes these have.
  CharacterMap::Match Next(absl::string_view text, size_t position) const;

  const CharacterMap map_;
  const ByteTrie& user_symbols_;
  const bool add_dummy_prefix_;
  const bool remove_extra_whitespaces_;
  const bool treat_whitespace_as_suffix_;
  const absl::string_view space_;  // What a space becomes.
};

}  // namespace limpid
