// SPDX-License-Identifier: Apache-2.0
//
// Ranges of IP addresses. No gRPC.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid {

// An address, or those that begin with the same bits.
class AddressRange {
 public:
  // "192.0.2.1", "10.0.0.0/8", "2001:db8::/32"; INVALID_ARGUMENT says what is
  // wrong, bits beyond the prefix among it.
  static absl::StatusOr<AddressRange> Parse(absl::string_view text);

  // Of PackedHost.
  bool Contains(absl::string_view packed) const;
  // As it was given.
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::string packed_;
  int num_bits_ = 0;
};

// Whether any of them contains the packed address.
bool AnyContains(const std::vector<AddressRange>& ranges,
                 absl::string_view packed);

}  // namespace limpid
