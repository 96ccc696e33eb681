// SPDX-License-Identifier: Apache-2.0
#include "server/input/python_literal.h"

#include <unicode/uchar.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/input/unicode.h"

namespace limpid {
namespace {

absl::Status Wrong(absl::string_view what) {
  return absl::InvalidArgumentError(what);
}

// What stands between the quotes.
class Body {
 public:
  Body(absl::string_view text, bool is_bytes)
      : text_(text), is_bytes_(is_bytes) {}

  absl::StatusOr<std::string> Unescape();

 private:
  absl::Status Escape();
  // The next `count` hexadecimal digits.
  absl::Status Hexadecimal(size_t count);
  absl::Status Named();
  absl::Status Append(char32_t value);
  // The next character; NUL, which a body does not hold, at the end.
  char Peek() const { return next_ < text_.size() ? text_[next_] : '\0'; }

  const absl::string_view text_;
  const bool is_bytes_;
  size_t next_ = 0;
  std::string out_;
};

absl::StatusOr<std::string> Body::Unescape() {
  while (next_ < text_.size()) {
    const char c = text_[next_++];
    if (c != '\\') {
      out_.push_back(c);
      continue;
    }
    LIMPID_RETURN_IF_ERROR(Escape());
  }
  return std::move(out_);
}

absl::Status Body::Escape() {
  const char c = text_[next_++];
  switch (c) {
    case '\\':
    case '\'':
    case '"':
      return Append(c);
    case 'a':
      return Append('\a');
    case 'b':
      return Append('\b');
    case 'f':
      return Append('\f');
    case 'n':
      return Append('\n');
    case 'r':
      return Append('\r');
    case 't':
      return Append('\t');
    case 'v':
      return Append('\v');
    case 'x':
      return Hexadecimal(2);
    default:
      break;
  }
  const auto is_octal = [](char digit) { return digit >= '0' && digit <= '7'; };
  if (is_octal(c)) {
    char32_t value = c - '0';
    for (int i = 0; i < 2 && is_octal(Peek()); ++i, ++next_) {
      value = value * 8 + (Peek() - '0');
    }
    return Append(value);
  }
  if (!is_bytes_) {
    if (c == 'u') return Hexadecimal(4);
    if (c == 'U') return Hexadecimal(8);
    if (c == 'N') return Named();
  }
  // Anything else stands for itself, backslash included.
  out_.push_back('\\');
  out_.push_back(c);
  return absl::OkStatus();
}

absl::Status Body::Hexadecimal(size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) {
    const char c = Peek();
    if (!absl::ascii_isxdigit(c)) {
      return Wrong(absl::StrCat("an escape lacks some of its ", count,
                                " hexadecimal digits"));
    }
    ++next_;
    value =
        value * 16 +
        (absl::ascii_isdigit(c) ? c - '0' : absl::ascii_tolower(c) - 'a' + 10);
  }
  if (value > 0x10FFFF) return Wrong("an escape is beyond U+10FFFF");
  return Append(static_cast<char32_t>(value));
}

absl::Status Body::Named() {
  const size_t end = text_.find('}', next_);
  if (Peek() != '{' || end == absl::string_view::npos) {
    return Wrong("\\N without a name in braces");
  }
  const std::string name(text_.substr(next_ + 1, end - next_ - 1));
  next_ = end + 1;
  for (const UCharNameChoice choice :
       {U_UNICODE_CHAR_NAME, U_CHAR_NAME_ALIAS}) {
    UErrorCode error = U_ZERO_ERROR;
    const UChar32 c = u_charFromName(choice, name.c_str(), &error);
    if (U_SUCCESS(error)) return Append(static_cast<char32_t>(c));
  }
  return Wrong("\\N with a name that no character has");
}

absl::Status Body::Append(char32_t value) {
  if (is_bytes_) {
    // \777 does not fit; Python drops the same bit.
    out_.push_back(static_cast<char>(value));
  } else if (value >= 0xD800 && value < 0xE000) {
    return Wrong("a surrogate, which has no UTF-8");
  } else {
    AppendUtf8(value, out_);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ParsePythonLiteral(absl::string_view source) {
  const size_t open = source.find_first_of("'\"");
  const std::string prefix =
      absl::AsciiStrToLower(source.substr(0, std::min(open, source.size())));
  const bool is_bytes = prefix == "b" || prefix == "br" || prefix == "rb";
  const bool is_raw = prefix == "r" || prefix == "br" || prefix == "rb";
  if (open == absl::string_view::npos ||
      !(is_bytes || is_raw || prefix.empty() || prefix == "u")) {
    return Wrong("neither a string nor bytes");
  }
  const char quote = source[open];
  // What stands behind a backslash does not close: so no escape begins at the
  // body's last character.
  size_t close = open + 1;
  while (close < source.size() && source[close] != quote) {
    if (source[close] == '\\') ++close;
    ++close;
  }
  if (close >= source.size()) return Wrong("the closing quote is missing");
  if (close + 1 != source.size()) {
    return Wrong("something stands behind the closing quote");
  }
  const absl::string_view body = source.substr(open + 1, close - open - 1);
  for (const char c : body) {
    if (c == '\0' || c == '\r' || c == '\n') {
      return Wrong("a NUL or the end of a line between the quotes");
    }
    if (is_bytes && !absl::ascii_isascii(c)) {
      return Wrong("bytes with a character beyond ASCII");
    }
  }
  if (is_raw) return std::string(body);
  return Body(body, is_bytes).Unescape();
}

}  // namespace limpid
