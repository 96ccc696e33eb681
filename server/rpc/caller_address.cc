// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/caller_address.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "server/rpc/peers.h"

namespace limpid {
namespace {

// "192.0.2.1", "192.0.2.1:80", "::1", "[::1]" or "[::1]:80"; brackets may be
// escaped as in URIs. Empty if it is none.
std::string PackedHostOf(absl::string_view text) {
  for (const auto& [open, close] : {std::pair("[", "]"), {"%5B", "%5D"}}) {
    if (!absl::ConsumePrefix(&text, open)) continue;
    const size_t end = text.find(close);
    return end == absl::string_view::npos ? ""
                                          : PackedHost(text.substr(0, end));
  }
  // A single colon is that before a port.
  const size_t colon = text.find(':');
  return PackedHost(colon == text.rfind(':') ? text.substr(0, colon) : text);
}

// Takes the last one off a list with commas.
absl::string_view TakeLast(absl::string_view& list) {
  const size_t comma = list.rfind(',');
  const bool only = comma == absl::string_view::npos;
  const absl::string_view last = only ? list : list.substr(comma + 1);
  list = only ? absl::string_view() : list.substr(0, comma);
  return absl::StripAsciiWhitespace(last);
}

}  // namespace

std::string CallerAddress(absl::string_view peer,
                          const std::vector<absl::string_view>& forwarded,
                          const std::vector<AddressRange>& trusted) {
  absl::string_view host = peer;
  if (!absl::ConsumePrefix(&host, "ipv4:")) absl::ConsumePrefix(&host, "ipv6:");
  std::string address = PackedHostOf(host);
  if (address.empty()) return std::string(peer);
  for (auto list = forwarded.rbegin(); list != forwarded.rend(); ++list) {
    absl::string_view rest = *list;
    while (!rest.empty()) {
      if (!AnyContains(trusted, address)) return HostText(address);
      std::string before = PackedHostOf(TakeLast(rest));
      if (before.empty()) return HostText(address);
      address = std::move(before);
    }
  }
  return HostText(address);
}

}  // namespace limpid
