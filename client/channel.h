// SPDX-License-Identifier: Apache-2.0
//
// How the client reaches a server: transport, credentials, limits.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/client.h"

namespace limpid {

struct Connection {
  std::shared_ptr<grpc::Channel> channel;
  std::string authorization;  // value of the header, empty for none
};

// Reads the files of the options and prepares the connection, which is opened
// with the first call. INVALID_ARGUMENT: a file that can't be read or holds no
// usable token, a request id that can't be sent.
absl::StatusOr<Connection> Connect(const ClientOptions& options);

// Whether a target is on this machine, where plain text can't be overheard.
bool IsLoopback(const std::string& target);

}  // namespace limpid
