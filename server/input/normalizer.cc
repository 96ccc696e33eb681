// SPDX-License-Identifier: Apache-2.0
#include "server/input/normalizer.h"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <utility>

#include "server/input/unicode.h"

namespace limpid {
namespace {

// ICU sorts the marks behind a letter by insertion: quadratic. Beyond this many
// they are sorted before ICU sees them.
constexpr size_t kShortRun = 32;

const icu::Normalizer2* GetNfc() {
  UErrorCode error = U_ZERO_ERROR;
  // Null only if ICU's data is damaged; the text then stays as it is.
  return icu::Normalizer2::getNFCInstance(error);
}

// Python's tokenizers normalise with the tables of Unicode 9. A character that
// is newer neither composes nor changes place with its neighbours there.
bool IsNewerThanUnicode9(char32_t c) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return age[0] > 9 || (age[0] == 9 && age[1] > 0);
}

// Whether what stands before `c` has no influence on its normal form.
bool StartsSegment(const icu::Normalizer2& nfc, char32_t c) {
  return c < 0x300 || nfc.hasBoundaryBefore(static_cast<UChar32>(c)) ||
         IsNewerThanUnicode9(c);
}

// The code points fully decomposed, with their marks in canonical order.
icu::UnicodeString SortedDecomposition(const icu::Normalizer2& nfc,
                                       const std::u32string& segment) {
  std::vector<std::pair<uint8_t, UChar32>> marks;  // Class 0 ends a run.
  for (const char32_t c : segment) {
    const auto code_point = static_cast<UChar32>(c);
    icu::UnicodeString parts;
    if (!nfc.getDecomposition(code_point, parts)) parts = code_point;
    for (int32_t i = 0; i < parts.length(); i = parts.moveIndex32(i, 1)) {
      const UChar32 part = parts.char32At(i);
      marks.emplace_back(nfc.getCombiningClass(part), part);
    }
  }
  icu::UnicodeString out;
  for (auto run = marks.begin(); run != marks.end();) {
    const auto end = std::find_if(run + 1, marks.end(),
                                  [](const auto& m) { return m.first == 0; });
    std::stable_sort(run, end, [](const auto& a, const auto& b) {
      return a.first < b.first;
    });
    for (; run != end; ++run) out.append(run->second);
  }
  return out;
}

// NFC of one segment in UTF-8; false if it is NFC already.
bool ChangeSegment(const icu::Normalizer2& nfc, const std::u32string& segment,
                   std::string& out) {
  // The usual case: one character that stands for itself.
  if (segment.size() == 1 &&
      u_getIntPropertyValue(static_cast<UChar32>(segment[0]),
                            UCHAR_NFC_QUICK_CHECK) == UNORM_YES) {
    return false;
  }
  icu::UnicodeString given;
  for (const char32_t c : segment) given.append(static_cast<UChar32>(c));
  UErrorCode error = U_ZERO_ERROR;
  const icu::UnicodeString normal = nfc.normalize(
      segment.size() <= kShortRun ? given : SortedDecomposition(nfc, segment),
      error);
  if (U_FAILURE(error) || normal == given) return false;
  out.clear();
  normal.toUTF8String(out);
  return true;
}

}  // namespace

AlignedText AlignedText::Nfc(absl::string_view piece, size_t offset) {
  AlignedText out(piece, offset);
  const icu::Normalizer2* nfc = GetNfc();
  if (nfc == nullptr) return out;
  std::u32string segment;
  std::string changed;
  for (size_t begin = 0; begin < piece.size();) {
    size_t end = begin;
    char32_t c = NextCodePoint(piece, end);
    segment.assign(1, c);
    bool newer = c >= 0x300 && IsNewerThanUnicode9(c);
    while (end < piece.size() && !newer) {
      size_t next = end;
      c = NextCodePoint(piece, next);
      if (StartsSegment(*nfc, c)) break;
      segment.push_back(c);
      end = next;
    }
    const bool change = !newer && ChangeSegment(*nfc, segment, changed);
    if (change && !out.is_changed_) {
      out.is_changed_ = true;
      out.changed_.reserve(piece.size());
      out.begin_.reserve(piece.size());
      out.end_.reserve(piece.size());
      for (size_t i = 0; i < begin; ++i) {
        out.Append(piece.substr(i, 1), offset + i, offset + i + 1);
      }
    }
    if (change) {
      out.Append(changed, offset + begin, offset + end);
    } else if (out.is_changed_) {
      for (size_t i = begin; i < end; ++i) {
        out.Append(piece.substr(i, 1), offset + i, offset + i + 1);
      }
    }
    begin = end;
  }
  return out;
}

void AlignedText::Append(absl::string_view bytes, size_t begin, size_t end) {
  changed_.append(bytes.data(), bytes.size());
  begin_.insert(begin_.end(), bytes.size(), begin);
  end_.insert(end_.end(), bytes.size(), end);
}

size_t AlignedText::OriginalBegin(size_t begin) const {
  if (!is_changed_) return offset_ + begin;
  if (begin < begin_.size()) return begin_[begin];
  return end_.empty() ? offset_ : end_.back();
}

size_t AlignedText::OriginalEnd(size_t end) const {
  if (!is_changed_) return offset_ + end;
  return end > 0 ? end_[end - 1] : offset_;
}

}  // namespace limpid
