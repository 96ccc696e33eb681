// SPDX-License-Identifier: Apache-2.0
//
// The peers of connected sockets, and how to get rid of them whoever owns the
// sockets. No gRPC.
#pragma once

#include <sys/socket.h>

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace limpid {

// An IP address as its 4 or 16 bytes in network order, so that one peer has one
// spelling: an IPv4 address within IPv6 is IPv4. Empty for other families.
std::string PackedHost(const sockaddr_storage& address);
// The same of an address as people write it; empty if the text is none.
std::string PackedHost(absl::string_view text);

// As people write it; for logs.
std::string HostText(const std::string& packed);

// The port of an IP address; 0 for other families.
int PortOf(const sockaddr_storage& address);

// Resets connections of this process whose own port is `port`, those of one
// packed host or of all: what has been received and not been read is thrown
// away, and the sockets' owner finds them disconnected. Looks at descriptors up
// to `highest`; returns how many it reset. Thread-safe, also against their
// being closed meanwhile.
int ResetConnections(int port, const std::optional<std::string>& host,
                     int highest);

}  // namespace limpid
