// SPDX-License-Identifier: Apache-2.0
#include "server/render/token_text.h"

#include <cstddef>
#include <cstdint>

namespace limpid::render {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

// Length of the sequence that a lead byte announces, 0 if it can't lead.
size_t SequenceLength(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

bool IsUnsafe(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c <= 0x9F) ||         // C0, DEL, C1
         c == 0x061C || (c >= 0x200B && c <= 0x200F) ||  // zero width, marks
         (c >= 0x2028 && c <= 0x202E) ||  // separators, embeddings, overrides
         (c >= 0x2060 && c <= 0x206F) ||  // isolates and the like
         c == 0xFEFF || (c >= 0xE0000 && c <= 0xE007F);
}

}  // namespace

std::vector<char32_t> DecodeUtf8(absl::string_view text) {
  static constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  std::vector<char32_t> out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const uint8_t lead = static_cast<uint8_t>(text[i]);
    const size_t length = SequenceLength(lead);
    char32_t c = length <= 1 ? lead : lead & (0x7F >> length);
    bool valid = length > 0 && length <= text.size() - i;
    for (size_t k = 1; valid && k < length; ++k) {
      const uint8_t next = static_cast<uint8_t>(text[i + k]);
      valid = (next & 0xC0) == 0x80;
      c = (c << 6) | (next & 0x3F);
    }
    valid = valid && c >= kSmallest[length] && c <= 0x10FFFF &&
            !(c >= 0xD800 && c <= 0xDFFF);
    out.push_back(valid ? c : kReplacement);
    i += valid ? length : 1;
  }
  return out;
}

void AppendUtf8(char32_t c, std::string& out) {
  const auto add = [&out](char32_t byte) {
    out.push_back(static_cast<char>(byte));
  };
  if (c < 0x80) {
    add(c);
  } else if (c < 0x800) {
    add(0xC0 | (c >> 6));
    add(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    add(0xE0 | (c >> 12));
    add(0x80 | ((c >> 6) & 0x3F));
    add(0x80 | (c & 0x3F));
  } else {
    add(0xF0 | (c >> 18));
    add(0x80 | ((c >> 12) & 0x3F));
    add(0x80 | ((c >> 6) & 0x3F));
    add(0x80 | (c & 0x3F));
  }
}

std::string SafeText(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char32_t c : DecodeUtf8(text)) {
    if (c == '\n') {
      c = 0x21B5;
    } else if (c == '\t') {
      c = 0x21E5;
    } else if (IsUnsafe(c)) {
      c = kReplacement;
    }
    AppendUtf8(c, out);
  }
  return out;
}

}  // namespace limpid::render
