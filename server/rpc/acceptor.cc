// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/acceptor.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/steady_time.h"
#include "server/rpc/peers.h"

namespace limpid {
namespace {

constexpr int kBacklog = 4096;
// How long to wait when descriptors or memory have run out.
constexpr absl::Duration kPause = absl::Milliseconds(50);
// Sent bytes that nobody acknowledges for so long end the connection.
constexpr unsigned kUserTimeoutMs = 30000;
// What the process holds beside connections.
constexpr int64_t kOwnDescriptors = 128;
constexpr int64_t kProbeDescriptors = 64;

absl::Status ListenFailed(const HostPort& where, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "LISTEN_FAILED",
      absl::StrCat("can't listen on ", where.ToString(), ": ", why));
}

int OwnPort(int socket) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return 0;
  }
  return PortOf(address);
}

// A listening socket, or -1 and errno.
int ListenOn(const addrinfo& address) {
  const int socket = ::socket(
      address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
      address.ai_protocol);
  if (socket < 0) return -1;
  const int yes = 1;
  // Connections of a server that has just ended don't count; a listener does.
  setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (bind(socket, address.ai_addr, address.ai_addrlen) == 0 &&
      listen(socket, kBacklog) == 0) {
    return socket;
  }
  const int cause = errno;
  close(socket);
  errno = cause;
  return -1;
}

void Prepare(int descriptor) {
  const int yes = 1;
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  setsockopt(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMs,
             sizeof(kUserTimeoutMs));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Open(const HostPort& where,
                                                         int max_descriptor) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failure = getaddrinfo(
      where.host.c_str(), absl::StrCat(where.port).c_str(), &hints, &found);
  if (failure != 0) return ListenFailed(where, gai_strerror(failure));
  std::unique_ptr<Acceptor> acceptor(new Acceptor(max_descriptor));
  HostPort bound = where;
  int cause = 0;
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    // A name with several addresses has one port.
    const uint16_t port = htons(static_cast<uint16_t>(bound.port));
    if (a->ai_family == AF_INET6) {
      reinterpret_cast<sockaddr_in6*>(a->ai_addr)->sin6_port = port;
    } else {
      reinterpret_cast<sockaddr_in*>(a->ai_addr)->sin_port = port;
    }
    const int socket = ListenOn(*a);
    if (socket < 0) {
      // A name may have addresses of a family that this machine lacks.
      if (cause == 0 || errno == EADDRINUSE) cause = errno;
      continue;
    }
    acceptor->sockets_.push_back(socket);
    bound.port = OwnPort(socket);
  }
  freeaddrinfo(found);
  if (acceptor->sockets_.empty() || cause == EADDRINUSE) {
    return ListenFailed(where, std::strerror(cause));
  }
  acceptor->wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (acceptor->wake_ < 0) return ListenFailed(where, std::strerror(errno));
  acceptor->address_ = bound.ToString();
  acceptor->port_ = bound.port;
  return acceptor;
}

Acceptor::~Acceptor() {
  Stop();
  if (wake_ >= 0) close(wake_);
}

void Acceptor::Start(OnConnection on_connection, OnRefusal on_refusal) {
  on_connection_ = std::move(on_connection);
  on_refusal_ = std::move(on_refusal);
  thread_ = std::thread([this] { Run(); });
}

void Acceptor::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    (void)!write(wake_, &one, sizeof(one));
    thread_.join();
  }
  for (const int socket : sockets_) close(socket);
  sockets_.clear();
}

void Acceptor::Bar(const std::string& host, absl::Time until) {
  {
    MutexLock lock(mutex_);
    const absl::Time now = SteadyNow();
    std::erase_if(barred_, [&](const auto& b) { return b.second <= now; });
    barred_[host] = until;
  }
  ResetConnections(port_, host, highest_);
}

void Acceptor::ResetAll() { ResetConnections(port_, std::nullopt, highest_); }

std::vector<ConnectionState> Acceptor::Connections() const {
  return ListConnections(port_, highest_);
}

bool Acceptor::WakeOwner(const ConnectionState& connection) const {
  return limpid::WakeOwner(port_, connection);
}

bool Acceptor::IsBarred(const std::string& host) {
  MutexLock lock(mutex_);
  const auto found = barred_.find(host);
  return found != barred_.end() && SteadyNow() < found->second;
}

void Acceptor::Run() {
  std::vector<pollfd> waiting;
  for (const int socket : sockets_) waiting.push_back({socket, POLLIN, 0});
  waiting.push_back({wake_, POLLIN, 0});
  while (true) {
    if (poll(waiting.data(), waiting.size(), -1) < 0) continue;
    if (waiting.back().revents != 0) return;
    for (const pollfd& one : waiting) {
      if (one.revents != 0) AcceptAll(one.fd);
    }
  }
}

void Acceptor::AcceptAll(int socket) {
  // A limit, so that a flood of connections can't keep the thread from ending.
  for (int i = 0; i < kBacklog; ++i) {
    sockaddr_storage peer = {};
    socklen_t size = sizeof(peer);
    const int descriptor = accept4(socket, reinterpret_cast<sockaddr*>(&peer),
                                   &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
          errno == ENOMEM) {
        absl::SleepFor(kPause);
      }
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return;
    }
    if (descriptor >= max_descriptor_ || IsBarred(PackedHost(peer))) {
      close(descriptor);
      on_refusal_();
      continue;
    }
    Prepare(descriptor);
    highest_ = std::max(highest_.load(), descriptor);
    on_connection_(descriptor);
  }
}

DescriptorCaps MakeDescriptorCaps(int64_t max_connections) {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const auto all = static_cast<int64_t>(
      std::min<rlim_t>(limit.rlim_cur, std::numeric_limits<int>::max()));
  const int64_t reserve = std::min(kOwnDescriptors, all / 2);
  DescriptorCaps caps;
  caps.ordinary = static_cast<int>(
      std::min(all - reserve, kOwnDescriptors + max_connections));
  caps.probes = static_cast<int>(
      std::min(caps.ordinary + std::min(kProbeDescriptors, reserve / 2), all));
  return caps;
}

}  // namespace limpid
