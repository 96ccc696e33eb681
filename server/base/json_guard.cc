// SPDX-License-Identifier: Apache-2.0
#include "server/base/json_guard.h"

namespace limpid {

bool IsTameJson(absl::string_view text, int max_depth, int64_t max_values) {
  int depth = 0;
  int64_t values = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\0') return false;
    if (in_string) {
      if (c == '\\') {
        ++i;
        if (i < text.size() && text[i] == '\0') return false;
      } else if (c == '"') {
        in_string = false;
      }
      continue;
    }
    switch (c) {
      case '"':
        in_string = true;
        break;
      case '{':
      case '[':
        // Counts for the container's first member.
        if (++depth > max_depth || ++values > max_values) return false;
        break;
      case '}':
      case ']':
        --depth;
        break;
      case ',':
        if (++values > max_values) return false;
        break;
      default:
        break;
    }
  }
  return true;
}

}  // namespace limpid
