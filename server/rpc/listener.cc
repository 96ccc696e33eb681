// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/listener.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/after.h"
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
// The largest windows that gRPC opens on networks of today are a few megabytes.
constexpr int64_t kMaxUnansweredBytes = int64_t{64} << 20;
constexpr int kHandshakeTimeoutMs = 5000;
constexpr int kMinPingIntervalMs = 10000;
constexpr int kNoCompressionBitset = 1;
// What peers get to read how their cancelled calls ended.
constexpr absl::Duration kLastFrames = absl::Milliseconds(200);

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

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(duration),
                                            std::numeric_limits<int>::max()));
}

void SetConnectionLimits(const ConnectionOptions& options,
                         grpc::ServerBuilder& builder) {
  const auto set = [&](const char* argument, int value) {
    builder.AddChannelArgument(argument, value);
  };
  set(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  set(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  set(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  set(GRPC_ARG_MAX_CONNECTION_IDLE_MS, Milliseconds(options.max_idle));
  set(GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(options.max_age));
  set(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
      Milliseconds(options.max_age_grace));
  // The only thing that ends peers that never read their socket.
  set(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive));
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout));
  set(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  set(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      kMinPingIntervalMs);
}

void SetLimits(const RpcServerOptions& options, grpc::ServerBuilder& builder) {
  SetConnectionLimits(options.connections, builder);
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.max_request_bytes));
  builder.SetMaxSendMessageSize(-1);  // replies have a limit of their own
  if (options.gzip) {
    builder.SetDefaultCompressionLevel(GRPC_COMPRESS_LEVEL_LOW);
  } else {
    // Compressed messages are unpacked before their size is looked at.
    builder.AddChannelArgument(
        GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET,
        kNoCompressionBitset);
  }
  grpc::ResourceQuota quota("limpid");
  quota.Resize(kBaseQuotaBytes + kLargestMessages * options.max_request_bytes);
  quota.SetMaxThreads(kMaxSyncThreads);
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
}

std::shared_ptr<grpc::ServerCredentials> MakeCredentials(
    const std::optional<TlsFiles>& tls) {
  if (!tls) return grpc::InsecureServerCredentials();
  namespace tls_api = grpc::experimental;
  auto files = std::make_shared<tls_api::FileWatcherCertificateProvider>(
      tls->key, tls->certificate, tls->client_ca,
      static_cast<unsigned>(absl::ToInt64Seconds(tls->reload)));
  tls_api::TlsServerCredentialsOptions options(files);
  options.watch_identity_key_cert_pairs();
  if (!tls->client_ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(
        GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return tls_api::TlsServerCredentials(options);
}

}  // namespace

std::string Listener::address() const {
  return acceptor == nullptr ? "" : acceptor->address();
}

void Listener::Shutdown(absl::Time limit) {
  if (server == nullptr) return;
  reset_guard.reset();
  flood_guard.reset();
  acceptor->Stop();
  // A cancelled call still waits for what is being written, and a peer that
  // reads nothing lets that last until its connection ends.
  const After reset(limit + kLastFrames, [this] { acceptor->ResetAll(); });
  server->Shutdown(absl::ToChronoTime(limit));
}

absl::StatusOr<Listener> Listen(const ListenerOptions& own,
                                const RpcServerOptions& options,
                                const std::vector<grpc::Service*>& services) {
  LIMPID_ASSIGN_OR_RETURN(const HostPort where, ParseHostPort(own.where));
  Listener listener;
  LIMPID_ASSIGN_OR_RETURN(listener.acceptor,
                          Acceptor::Open(where, own.max_descriptor));
  grpc::ServerBuilder builder;
  SetLimits(options, builder);
  using FromDescriptor =
      grpc::ServerBuilder::experimental_type::ExternalConnectionType;
  listener.door = builder.experimental().AddExternalConnectionAcceptor(
      FromDescriptor::FROM_FD, MakeCredentials(own.tls));
  for (grpc::Service* service : services) builder.RegisterService(service);
  if (!own.reflection) {
    builder.SetOption(std::make_unique<WithoutReflection>());
  }
  if (services.empty()) {
    listener.nothing = std::make_unique<grpc::CallbackGenericService>();
    builder.RegisterCallbackGenericService(listener.nothing.get());
  }
  listener.server = builder.BuildAndStart();
  if (listener.server == nullptr) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "LISTEN_FAILED",
                     absl::StrCat("can't serve on ", own.where,
                                  ": gRPC does not start; see the log"));
  }
  const auto report =
      options.on_connection ? options.on_connection : [](bool) {};
  listener.acceptor->Start(
      [door = listener.door.get(), report](int descriptor) {
        report(true);
        grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters
            connection;
        connection.fd = descriptor;
        door->HandleNewConnection(&connection);
      },
      [report] { report(false); });
  if (options.connections.max_resets_per_second > 0) {
    listener.reset_guard = std::make_unique<ResetGuard>(
        options.connections.max_resets_per_second, kMaxStreamsPerConnection,
        options.connections.trusted_proxies, *listener.acceptor,
        options.on_barred);
  }
  listener.flood_guard = std::make_unique<FloodGuard>(
      kMaxUnansweredBytes, options.connections.trusted_proxies,
      *listener.acceptor, options.on_flood);
  return listener;
}

}  // namespace limpid
