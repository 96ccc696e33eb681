// SPDX-License-Identifier: Apache-2.0
//
// What gRPC counts of its servers and their connections, by its own interface
// for that (channelz), which costs nothing until it is asked.
#pragma once

#include <cstdint>
#include <vector>

#include "server/rpc/reset_meter.h"

namespace limpid {

// Calls that all servers of this process have begun, less those that ended
// well. Takes some microseconds. Thread-safe.
int64_t CountUnsuccessfulCalls();

// The open connections to a port of this process. Takes some 20 microseconds
// per connection. Thread-safe.
std::vector<StreamCounts> CountStreams(int port);

}  // namespace limpid
