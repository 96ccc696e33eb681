// SPDX-License-Identifier: Apache-2.0
//
// On libmicrohttpd rather than prometheus-cpp's own exposer: that one's web
// server (CivetWeb) starts threads with a fixed stack of 100 KiB, which is less
// than the thread-local storage of a process that has loaded CUDA's libraries,
// so that no thread starts; and each of its threads serves one connection, so
// that silent ones hold up every scrape.
#include "server/observe/exposer.h"

#include <microhttpd.h>
#include <netdb.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "prometheus/text_serializer.h"

namespace limpid {
namespace {

constexpr unsigned kMaxConnections = 128;
constexpr unsigned kIdleSeconds = 5;

absl::Status ListenFailed(const std::string& host_port, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "METRICS_LISTEN_FAILED",
      absl::StrCat("can't serve metrics on ", host_port, ": ", why));
}

MHD_Result Answer(MHD_Connection* connection, unsigned status, std::string body,
                  const char* content_type) {
  MHD_Response* const response = MHD_create_response_from_buffer(
      body.size(), body.data(), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
  const MHD_Result result = MHD_queue_response(connection, status, response);
  MHD_destroy_response(response);
  return result;
}

class HttpExposer final : public MetricsExposer {
 public:
  HttpExposer(std::shared_ptr<prometheus::Registry> registry,
              std::function<void()> before_scrape)
      : registry_(std::move(registry)),
        before_scrape_(std::move(before_scrape)) {}
  ~HttpExposer() override {
    if (daemon_ != nullptr) MHD_stop_daemon(daemon_);
  }

  absl::Status Open(const std::string& host_port);
  const std::string& address() const override { return address_; }

 private:
  static MHD_Result Handle(void* self, MHD_Connection* connection,
                           const char* url, const char* method, const char*,
                           const char*, size_t*, void**);

  const std::shared_ptr<prometheus::Registry> registry_;
  const std::function<void()> before_scrape_;
  MHD_Daemon* daemon_ = nullptr;
  std::string address_;
};

absl::Status HttpExposer::Open(const std::string& host_port) {
  const size_t colon = host_port.rfind(':');
  const std::string host = host_port.substr(0, colon);
  absl::string_view bare = host;
  if (absl::ConsumePrefix(&bare, "[")) absl::ConsumeSuffix(&bare, "]");
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(std::string(bare).c_str(),
                  host_port.substr(colon + 1).c_str(), &hints, &found);
  if (error != 0) return ListenFailed(host_port, gai_strerror(error));
  // One thread for all connections: silent ones cost a descriptor each until
  // they time out, and hold up nobody.
  unsigned flags = MHD_USE_AUTO_INTERNAL_THREAD;
  if (found->ai_family == AF_INET6) flags |= MHD_USE_IPv6;
  errno = 0;
  daemon_ = MHD_start_daemon(flags, 0, nullptr, nullptr, &HttpExposer::Handle,
                             this, MHD_OPTION_SOCK_ADDR, found->ai_addr,
                             MHD_OPTION_CONNECTION_LIMIT, kMaxConnections,
                             MHD_OPTION_CONNECTION_TIMEOUT, kIdleSeconds,
                             MHD_OPTION_END);
  const int cause = errno;
  freeaddrinfo(found);
  if (daemon_ == nullptr) return ListenFailed(host_port, std::strerror(cause));
  const MHD_DaemonInfo* const info =
      MHD_get_daemon_info(daemon_, MHD_DAEMON_INFO_BIND_PORT);
  address_ = absl::StrCat(host, ":", info->port);
  return absl::OkStatus();
}

MHD_Result HttpExposer::Handle(void* self, MHD_Connection* connection,
                               const char* url, const char* method, const char*,
                               const char*, size_t*, void**) {
  if (std::strcmp(url, "/metrics") != 0) {
    return Answer(connection, MHD_HTTP_NOT_FOUND, "only /metrics is here\n",
                  "text/plain");
  }
  if (std::strcmp(method, MHD_HTTP_METHOD_GET) != 0 &&
      std::strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
    return Answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "GET only\n",
                  "text/plain");
  }
  const auto& exposer = *static_cast<HttpExposer*>(self);
  exposer.before_scrape_();
  const prometheus::TextSerializer serializer;
  return Answer(connection, MHD_HTTP_OK,
                serializer.Serialize(exposer.registry_->Collect()),
                "text/plain; version=0.0.4; charset=utf-8");
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsExposer>> MetricsExposer::Open(
    const std::string& host_port,
    std::shared_ptr<prometheus::Registry> registry,
    std::function<void()> before_scrape) {
  auto exposer = std::make_unique<HttpExposer>(std::move(registry),
                                               std::move(before_scrape));
  LIMPID_RETURN_IF_ERROR(exposer->Open(host_port));
  return exposer;
}

}  // namespace limpid
