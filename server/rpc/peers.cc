// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/peers.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <utility>

namespace limpid {
namespace {

// Whether it is a socket whose own port that is.
bool HasPort(int descriptor, int port) {
  sockaddr_storage own = {};
  socklen_t size = sizeof(own);
  return getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &size) ==
             0 &&
         PortOf(own) == port;
}

// Nothing if it is not connected.
std::optional<std::string> HostOfPeer(int descriptor) {
  sockaddr_storage peer = {};
  socklen_t size = sizeof(peer);
  if (getpeername(descriptor, reinterpret_cast<sockaddr*>(&peer), &size) != 0) {
    return std::nullopt;
  }
  return PackedHost(peer);
}

// Whether the descriptor is such a connection.
bool Matches(int descriptor, int port, const std::optional<std::string>& host) {
  if (!HasPort(descriptor, port)) return false;
  const std::optional<std::string> peer = HostOfPeer(descriptor);
  return peer && (!host || *peer == *host);
}

constexpr int kTcpClose = 7;  // in tcpi_state

// Nothing if it is no connection with that port. A kernel that does not count
// bytes (before 4.19) says 0 of both.
std::optional<ConnectionState> StateOf(int descriptor, int port) {
  if (!HasPort(descriptor, port)) return std::nullopt;
  tcp_info info = {};
  socklen_t size = sizeof(info);
  if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
    return std::nullopt;
  }
  ConnectionState state;
  state.descriptor = descriptor;
  state.dead = info.tcpi_state == kTcpClose;
  if (std::optional<std::string> host = HostOfPeer(descriptor)) {
    state.host = *std::move(host);
  } else if (!state.dead) {
    return std::nullopt;  // it listens
  }
  int unread = 0;
  if (size >=
          offsetof(tcp_info, tcpi_bytes_sent) + sizeof(info.tcpi_bytes_sent) &&
      ioctl(descriptor, FIONREAD, &unread) == 0) {
    state.read = std::max<int64_t>(
        0, static_cast<int64_t>(info.tcpi_bytes_received) - unread);
    state.sent = static_cast<int64_t>(info.tcpi_bytes_sent);
  }
  return state;
}

// shutdown(2) would leave megabytes to be read first.
bool Disconnect(int descriptor) {
  sockaddr nobody = {};
  nobody.sa_family = AF_UNSPEC;
  return connect(descriptor, &nobody, sizeof(nobody)) == 0;
}

}  // namespace

std::string PackedHost(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address).sin_addr;
    return {reinterpret_cast<const char*>(&v4), sizeof(v4)};
  }
  if (address.ss_family != AF_INET6) return "";
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  const std::string packed(reinterpret_cast<const char*>(&v6), sizeof(v6));
  return IN6_IS_ADDR_V4MAPPED(&v6) ? packed.substr(12) : packed;
}

std::string PackedHost(absl::string_view text) {
  const std::string terminated(text);
  sockaddr_storage address = {};
  address.ss_family = AF_INET;
  auto& v4 = reinterpret_cast<sockaddr_in&>(address).sin_addr;
  if (inet_pton(AF_INET, terminated.c_str(), &v4) == 1) {
    return PackedHost(address);
  }
  address = {};
  address.ss_family = AF_INET6;
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address).sin6_addr;
  return inet_pton(AF_INET6, terminated.c_str(), &v6) == 1 ? PackedHost(address)
                                                           : "";
}

std::string HostText(const std::string& packed) {
  char text[INET6_ADDRSTRLEN] = "";
  const int family = packed.size() == sizeof(in_addr) ? AF_INET : AF_INET6;
  if (family == AF_INET6 && packed.size() != sizeof(in6_addr)) return "unknown";
  return inet_ntop(family, packed.data(), text, sizeof(text)) == nullptr
             ? "unknown"
             : text;
}

int PortOf(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  }
  if (address.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  }
  return 0;
}

int ResetConnections(int port, const std::optional<std::string>& host,
                     int highest) {
  int count = 0;
  for (int descriptor = 0; descriptor <= highest; ++descriptor) {
    if (!Matches(descriptor, port, host)) continue;
    // The owner may close the descriptor and its number get another meaning;
    // a duplicate keeps what has been looked at.
    const int held = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    if (held < 0) continue;
    if (Matches(held, port, host) && Disconnect(held)) ++count;
    close(held);
  }
  return count;
}

std::vector<ConnectionState> ListConnections(int port, int highest) {
  std::vector<ConnectionState> connections;
  for (int descriptor = 0; descriptor <= highest; ++descriptor) {
    std::optional<ConnectionState> state = StateOf(descriptor, port);
    if (state) connections.push_back(std::move(*state));
  }
  return connections;
}

bool WakeOwner(int port, const ConnectionState& connection) {
  // A duplicate keeps what is looked at.
  const int held = fcntl(connection.descriptor, F_DUPFD_CLOEXEC, 0);
  if (held < 0) return false;
  const std::optional<ConnectionState> now = StateOf(held, port);
  const bool dead = now && now->dead;
  // Fails, since nothing is connected, and wakes nevertheless.
  if (dead) shutdown(held, SHUT_RDWR);
  close(held);
  return dead;
}

}  // namespace limpid
