// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/address_range.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/peers.h"

namespace limpid {
namespace {

constexpr int kBitsPerByte = 8;

// Whether two addresses of one kind begin with the same bits.
bool SameBits(absl::string_view a, absl::string_view b, int num_bits) {
  const int whole = num_bits / kBitsPerByte;
  if (a.substr(0, whole) != b.substr(0, whole)) return false;
  const int rest = num_bits % kBitsPerByte;
  if (rest == 0) return true;
  const auto high = [&](char byte) {
    return static_cast<unsigned char>(byte) >> (kBitsPerByte - rest);
  };
  return high(a[whole]) == high(b[whole]);
}

absl::Status Wrong(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" ", why));
}

}  // namespace

absl::StatusOr<AddressRange> AddressRange::Parse(absl::string_view text) {
  const size_t slash = text.find('/');
  AddressRange range;
  range.text_ = std::string(text);
  range.packed_ = PackedHost(text.substr(0, slash));
  if (range.packed_.empty()) {
    return Wrong(text, "is neither an IP address nor ADDRESS/BITS");
  }
  const int all = static_cast<int>(range.packed_.size()) * kBitsPerByte;
  range.num_bits_ = all;
  if (slash == absl::string_view::npos) return range;
  const absl::string_view digits = text.substr(slash + 1);
  if (digits.empty() || digits.size() > 3 ||
      digits.find_first_not_of("0123456789") != absl::string_view::npos ||
      !absl::SimpleAtoi(digits, &range.num_bits_) || range.num_bits_ > all) {
    return Wrong(text, absl::StrCat("has no prefix of 0 to ", all, " bits"));
  }
  std::string first = range.packed_;
  for (int bit = range.num_bits_; bit < all; ++bit) {
    first[bit / kBitsPerByte] &=
        static_cast<char>(~(1 << (kBitsPerByte - 1 - bit % kBitsPerByte)));
  }
  if (first != range.packed_) {
    return Wrong(
        text, absl::StrCat("has bits set beyond the first ", range.num_bits_));
  }
  return range;
}

bool AddressRange::Contains(absl::string_view packed) const {
  return packed.size() == packed_.size() &&
         SameBits(packed, packed_, num_bits_);
}

bool AnyContains(const std::vector<AddressRange>& ranges,
                 absl::string_view packed) {
  return std::any_of(
      ranges.begin(), ranges.end(),
      [&](const AddressRange& range) { return range.Contains(packed); });
}

}  // namespace limpid
