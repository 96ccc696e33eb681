// SPDX-License-Identifier: Apache-2.0
//
// HOST:PORT as flags, configuration and listeners use it. No gRPC.
#pragma once

#include <string>

#include "server/base/status.h"

namespace limpid {

struct HostPort {
  std::string host;  // without brackets
  int port = 0;

  // "127.0.0.1:80", "[::1]:80".
  std::string ToString() const;
};

// HOST:PORT or [IPV6]:PORT with a port of 0 to 65535; INVALID_ARGUMENT says
// what is wrong.
absl::StatusOr<HostPort> ParseHostPort(absl::string_view text);

// Whether only this machine can reach it: "localhost", 127.0.0.0/8, ::1. Other
// names are taken for reachable from outside.
bool IsLoopback(const HostPort& address);

}  // namespace limpid
