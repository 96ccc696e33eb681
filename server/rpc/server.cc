// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/server.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>

#include <mutex>
#include <utility>

#include "absl/time/clock.h"
#include "grpc/health/v1/health.pb.h"
#include "server/rpc/acceptor.h"
#include "server/rpc/listener.h"

namespace limpid {
namespace {

class Server final : public RpcServer {
 public:
  Server(Listener main, Listener health, std::vector<std::string> services)
      : main_(std::move(main)),
        health_(std::move(health)),
        address_(main_.address()),
        health_address_(health_.address()),
        services_(std::move(services)) {
    SetServing("", false);
  }
  ~Server() override { Shutdown(absl::Now()); }

  const std::string& address() const override { return address_; }
  const std::string& health_address() const override { return health_address_; }

  void SetServing(const std::string& name, bool serving) override {
    ForEachHealth([&](grpc::HealthCheckServiceInterface& health) {
      health.SetServingStatus(name, serving);
      if (!name.empty()) return;
      for (const std::string& service : services_) {
        health.SetServingStatus(service, serving);
      }
    });
  }

  void StopServing() override {
    ForEachHealth(
        [](grpc::HealthCheckServiceInterface& health) { health.Shutdown(); });
  }

  void Shutdown(absl::Time limit) override {
    std::call_once(shut_down_, [&] {
      main_.Shutdown(limit);
      health_.Shutdown(limit);
    });
  }

 private:
  template <typename F>
  void ForEachHealth(F f) {
    for (const Listener* listener : {&main_, &health_}) {
      if (listener->server == nullptr) continue;
      auto* const health = listener->server->GetHealthCheckService();
      if (health != nullptr) f(*health);
    }
  }

  Listener main_;
  Listener health_;
  const std::string address_, health_address_;
  const std::vector<std::string> services_;
  std::once_flag shut_down_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(
    const RpcServerOptions& options,
    const std::vector<grpc::Service*>& services) {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // gRPC's own health service brings no description, so that reflection would
    // list it and know nothing of it.
    grpc::health::v1::HealthCheckRequest::descriptor();
    // Kept for good: the end of gRPC with its last server waits up to ten
    // seconds for its poller of sockets whose peers read nothing.
    grpc_init();
  });
  const DescriptorCaps caps =
      MakeDescriptorCaps(options.connections.max_connections);
  LIMPID_ASSIGN_OR_RETURN(
      Listener main,
      Listen({options.listen, caps.ordinary, options.tls, options.reflection},
             options, services));
  Listener health;
  if (options.health) {
    auto opened = Listen({*options.health, caps.probes, std::nullopt, false},
                         options, {});
    if (!opened.ok()) {
      main.Shutdown(absl::Now());
      return opened.status();
    }
    health = *std::move(opened);
  }
  return std::make_unique<Server>(
      std::move(main), std::move(health),
      std::vector<std::string>{"limpid.v1.ExplanationService",
                               "limpid.v1.ModelService",
                               "inference.GRPCInferenceService"});
}

}  // namespace limpid
