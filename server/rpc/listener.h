// SPDX-License-Identifier: Apache-2.0
//
// One address with its gRPC server: transport limits and credentials.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/status.h"
#include "server/rpc/acceptor.h"
#include "server/rpc/flood_guard.h"
#include "server/rpc/reset_guard.h"
#include "server/rpc/server.h"

namespace limpid {

// A gRPC server and what accepts its connections.
struct Listener {
  // A server whose only service is the built-in health does not start without
  // another that calls come to; this one answers UNIMPLEMENTED to all.
  std::unique_ptr<grpc::CallbackGenericService> nothing;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> door;
  std::unique_ptr<Acceptor> acceptor;
  std::unique_ptr<ResetGuard> reset_guard;  // none: no limit
  std::unique_ptr<FloodGuard> flood_guard;

  // Empty if there is none.
  std::string address() const;
  // Refuses new connections and calls; cancels calls that are not over by
  // `limit`. Nothing for an empty listener.
  void Shutdown(absl::Time limit);
};

struct ListenerOptions {
  std::string where;
  int max_descriptor = 0;
  std::optional<TlsFiles> tls;
  bool reflection = false;
};

// Serves from now on. `services` outlive it; none: health alone. Errors as
// RpcServer::Start.
absl::StatusOr<Listener> Listen(const ListenerOptions& own,
                                const RpcServerOptions& options,
                                const std::vector<grpc::Service*>& services);

}  // namespace limpid
