// SPDX-License-Identifier: Apache-2.0
//
// NFC normalisation that remembers where every byte came from.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace limpid {

// A piece of a text, perhaps normalised, and the way back to the text.
class AlignedText {
 public:
  // The text's bytes [offset, offset + piece.size()), unchanged. `piece` must
  // outlive this object.
  AlignedText(absl::string_view piece, size_t offset)
      : unchanged_(piece), offset_(offset) {}
  // The same in NFC.
  static AlignedText Nfc(absl::string_view piece, size_t offset);

  absl::string_view text() const {
    return is_changed_ ? absl::string_view(changed_) : unchanged_;
  }
  // Where the text's bytes [begin, end) came from. Bytes of a character that
  // normalisation kept come from themselves; those of characters that it
  // composed or reordered come from all of these characters together.
  size_t OriginalBegin(size_t begin) const;
  size_t OriginalEnd(size_t end) const;

 private:
  void Append(absl::string_view bytes, size_t begin, size_t end);

  absl::string_view unchanged_;
  size_t offset_;
  bool is_changed_ = false;
  std::string changed_;
  // Per byte of changed_: the original bytes [begin, end).
  std::vector<size_t> begin_, end_;
};

}  // namespace limpid
