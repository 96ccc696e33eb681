// SPDX-License-Identifier: Apache-2.0
//
// The gRPC listener: limits, health, reflection.
#pragma once

#include <grpcpp/impl/service_type.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/status.h"
#include "server/rpc/address_range.h"
#include "server/rpc/tls.h"

namespace limpid {

// Of connections, as in limpid.config.v1.Connections.
struct ConnectionOptions {
  int64_t max_connections = 4096;
  absl::Duration max_idle = absl::Minutes(5);
  absl::Duration max_age = absl::InfiniteDuration();
  // What calls get beyond that to end.
  absl::Duration max_age_grace = absl::Minutes(10);
  absl::Duration keepalive = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(10);
  // Streams of a peer that end without a reply; 0: no limit.
  int64_t max_resets_per_second = 1000;
  // Peers that pass on the calls of others: that limit is not theirs, and their
  // x-forwarded-for says whose calls they are.
  std::vector<AddressRange> trusted_proxies = {};
};

struct RpcServerOptions {
  std::string listen = "127.0.0.1:0";
  std::optional<TlsFiles> tls;  // of `listen`
  // A second listener, always plain, that serves nothing but health.
  std::optional<std::string> health;
  bool reflection = true;
  int64_t max_request_bytes = int64_t{16} << 20;
  // Takes compressed requests, compresses replies for those who accept it.
  bool gzip = false;
  ConnectionOptions connections;
  // A connection has come; false: it was one too many. From any thread.
  std::function<void(bool accepted)> on_connection;
  // As ResetGuard::OnBarred. From any thread.
  std::function<void(const std::string& host, int64_t num_resets)> on_barred;
  // As FloodGuard::OnFlood. From any thread.
  std::function<void(const std::string& host, int64_t unanswered)> on_flood;
};

// Serves from Start until Shutdown. Health says NOT_SERVING until it is told
// otherwise. Thread-safe.
class RpcServer {
 public:
  // `services` outlive the server. FAILED_PRECONDITION, reason LISTEN_FAILED,
  // says which address and why.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const RpcServerOptions& options,
      const std::vector<grpc::Service*>& services);
  virtual ~RpcServer() = default;

  // HOST:PORT with the port in use.
  virtual const std::string& address() const = 0;
  // As address; empty without a listener for health.
  virtual const std::string& health_address() const = 0;

  // Health of a model or, with an empty name, of the server and its services.
  virtual void SetServing(const std::string& name, bool serving) = 0;
  // NOT_SERVING for everything, for good.
  virtual void StopServing() = 0;

  // Refuses new calls, cancels those that are not over by `limit`, and waits
  // for their end.
  virtual void Shutdown(absl::Time limit) = 0;
};

}  // namespace limpid
