// SPDX-License-Identifier: Apache-2.0
//
// The peers of connected sockets, and how to get rid of them whoever owns the
// sockets. No gRPC.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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

// What the kernel says of a TCP connection of this process.
struct ConnectionState {
  int descriptor = -1;
  std::string host;   // of the peer, see PackedHost; empty if it is dead
  int64_t read = 0;   // bytes, by the socket's owner
  int64_t sent = 0;   // bytes
  bool dead = false;  // was reset or has timed out; the owner may not know
};
// Those whose own port is `port`, with descriptors up to `highest`. Takes about
// a microsecond per descriptor. Thread-safe.
std::vector<ConnectionState> ListConnections(int port, int highest);

// Makes the descriptor of a dead connection ready once more for who waits for
// its edges. Thread-safe, also against its being closed meanwhile.
bool WakeOwner(int port, const ConnectionState& connection);

}  // namespace limpid
