// SPDX-License-Identifier: Apache-2.0
//
// A listening socket with an accept loop of our own. gRPC's stops for ever when
// descriptors run out, shares a taken port in silence, has no limit of
// connections, and can't get rid of a peer. No gRPC.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/rpc/address.h"
#include "server/rpc/peers.h"

namespace limpid {

// Listens from Open until Stop. Open, Start and Stop are called by one thread
// at a time, what is about connections by any.
class Acceptor {
 public:
  // Takes a connected socket over.
  using OnConnection = std::function<void(int descriptor)>;
  // A connection was closed unread: too many of them, or its peer is barred.
  using OnRefusal = std::function<void()>;

  // FAILED_PRECONDITION, reason LISTEN_FAILED, says which address and why.
  // A connection whose descriptor is `max_descriptor` or higher is closed: the
  // kernel gives the lowest that is free, so this bounds their number.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Open(const HostPort& where,
                                                        int max_descriptor);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // HOST:PORT with the port in use.
  const std::string& address() const { return address_; }
  int port() const { return port_; }

  // Accepts on a thread of its own, which both functions are called on.
  void Start(OnConnection on_connection, OnRefusal on_refusal);
  // Closes the listening sockets; connections live on.
  void Stop();

  // Resets all connections of a peer, as PackedHost spells it, and accepts none
  // of it until then, by SteadyNow.
  void Bar(const std::string& host, absl::Time until);
  // Resets all connections, whoever owns them now.
  void ResetAll();
  // All connections, those that are dead among them.
  std::vector<ConnectionState> Connections() const;
  // As WakeOwner of a descriptor.
  bool WakeOwner(const ConnectionState& connection) const;

 private:
  explicit Acceptor(int max_descriptor) : max_descriptor_(max_descriptor) {}

  void Run();
  void AcceptAll(int socket);
  bool IsBarred(const std::string& host);

  const int max_descriptor_;
  std::string address_;
  int port_ = 0;
  std::atomic<int> highest_{-1};  // descriptor that was accepted
  Mutex mutex_;
  std::map<std::string, absl::Time> barred_ LIMPID_GUARDED_BY(mutex_);
  std::vector<int> sockets_;
  int wake_ = -1;  // an event that ends the thread
  OnConnection on_connection_;
  OnRefusal on_refusal_;
  std::thread thread_;
};

// Of all listeners together, so that files can still be opened and probes
// answered when connections have taken the rest: the first for ordinary
// listeners, the second for those of probes. `max_connections` may lower both.
struct DescriptorCaps {
  int ordinary = 0;
  int probes = 0;
};
DescriptorCaps MakeDescriptorCaps(int64_t max_connections);

}  // namespace limpid
