// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/address.h"

namespace limpid {
namespace {

// Without a quota a sender holds memory for as many large messages as it likes:
// their size is judged once they are whole. Room for several of the largest.
constexpr size_t kBaseQuotaBytes = size_t{256} << 20;
constexpr size_t kLargestMessages = 16;
// Reflection is synchronous, with a thread per open stream; everything else is
// not and needs none of these.
constexpr int kMaxSyncThreads = 16;
constexpr int kMaxStreamsPerConnection = 100;
// Long tokens of gateways pass; over the limit the whole connection dies.
constexpr int kMaxMetadataBytes = 64 << 10;
constexpr int kHandshakeTimeoutMs = 5000;
constexpr int kMaxIdleMs = 300000;
// The only thing that ends peers that never read their socket.
constexpr int kKeepaliveMs = 30000;
constexpr int kKeepaliveTimeoutMs = 10000;
constexpr int kMinPingIntervalMs = 10000;
constexpr int kNoCompressionBitset = 1;

// Reflection is a plug-in of every server that is built in a process that links
// it; this takes it out again.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>*
                         plugins) override {
    plugins->erase(std::remove_if(plugins->begin(), plugins->end(),
                                  [](const auto& plugin) {
                                    return plugin->name() ==
                                           "proto_server_reflection";
                                  }),
                   plugins->end());
  }
};

void SetLimits(const RpcServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.max_request_bytes));
  builder.SetMaxSendMessageSize(-1);  // replies have a limit of their own
  // With it two servers share a port in silence.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kMaxIdleMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      kMinPingIntervalMs);
  // Compressed messages are unpacked before their size is looked at.
  builder.AddChannelArgument(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET,
                             kNoCompressionBitset);
  grpc::ResourceQuota quota("limpid");
  quota.Resize(kBaseQuotaBytes + kLargestMessages * options.max_request_bytes);
  quota.SetMaxThreads(kMaxSyncThreads);
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
}

struct Listener {
  // A server whose only service is the built-in health does not start without
  // another that calls come to; this one answers UNIMPLEMENTED to all.
  std::unique_ptr<grpc::CallbackGenericService> nothing;
  std::unique_ptr<grpc::Server> server;
  std::string address;
};

absl::StatusOr<Listener> Listen(const std::string& where,
                                const RpcServerOptions& options,
                                bool reflection,
                                const std::vector<grpc::Service*>& services) {
  LIMPID_ASSIGN_OR_RETURN(HostPort address, ParseHostPort(where));
  grpc::ServerBuilder builder;
  SetLimits(options, builder);
  int port = 0;
  builder.AddListeningPort(where, grpc::InsecureServerCredentials(), &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  if (!reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  Listener listener;
  if (services.empty()) {
    listener.nothing = std::make_unique<grpc::CallbackGenericService>();
    builder.RegisterCallbackGenericService(listener.nothing.get());
  }
  listener.server = builder.BuildAndStart();
  if (listener.server == nullptr || port == 0) {
    const std::string why = WhyNotListen(address);
    return MakeError(absl::StatusCode::kFailedPrecondition, "LISTEN_FAILED",
                     absl::StrCat("can't listen on ", where, ": ",
                                  why.empty() ? "see the log" : why));
  }
  address.port = port;
  listener.address = address.ToString();
  return listener;
}

class Server final : public RpcServer {
 public:
  Server(Listener main, Listener health, std::vector<std::string> services)
      : main_(std::move(main)),
        health_(std::move(health)),
        services_(std::move(services)) {
    SetServing("", false);
  }
  ~Server() override { Shutdown(absl::Now()); }

  const std::string& address() const override { return main_.address; }
  const std::string& health_address() const override { return health_.address; }

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
      main_.server->Shutdown(absl::ToChronoTime(limit));
      if (health_.server != nullptr) {
        health_.server->Shutdown(absl::ToChronoTime(limit));
      }
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
  });
  LIMPID_ASSIGN_OR_RETURN(Listener main, Listen(options.listen, options,
                                                options.reflection, services));
  Listener health;
  if (options.health) {
    LIMPID_ASSIGN_OR_RETURN(health,
                            Listen(*options.health, options, false, {}));
  }
  return std::make_unique<Server>(
      std::move(main), std::move(health),
      std::vector<std::string>{"limpid.v1.ExplanationService",
                               "limpid.v1.ModelService"});
}

}  // namespace limpid
