// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/peers.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

namespace limpid {
namespace {

constexpr int kHighest = 1000;

sockaddr_storage V4(const char* host, int port) {
  sockaddr_storage address = {};
  auto& v4 = reinterpret_cast<sockaddr_in&>(address);
  v4.sin_family = AF_INET;
  v4.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, host, &v4.sin_addr);
  return address;
}

sockaddr_storage V6(const char* host, int port) {
  sockaddr_storage address = {};
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET6, host, &v6.sin6_addr);
  return address;
}

TEST(PackedHostTest, OnePeerHasOneSpelling) {
  EXPECT_EQ(PackedHost(V4("127.0.0.2", 1)), std::string("\x7f\0\0\2", 4));
  EXPECT_EQ(PackedHost(V6("::ffff:127.0.0.2", 2)),
            PackedHost(V4("127.0.0.2", 1)));
  EXPECT_EQ(PackedHost(V6("::1", 1)).size(), 16u);
  EXPECT_EQ(PackedHost(sockaddr_storage{}), "");
}

TEST(PackedHostTest, IsReadFromText) {
  EXPECT_EQ(PackedHost("127.0.0.2"), PackedHost(V4("127.0.0.2", 1)));
  EXPECT_EQ(PackedHost("::ffff:127.0.0.2"), PackedHost(V4("127.0.0.2", 1)));
  EXPECT_EQ(PackedHost("2001:db8::1"), PackedHost(V6("2001:db8::1", 1)));
  for (const char* none :
       {"", "localhost", "127.0.0", "127.0.0.1:1", "[::1]"}) {
    EXPECT_EQ(PackedHost(none), "") << none;
  }
}

TEST(PackedHostTest, IsReadable) {
  EXPECT_EQ(HostText(PackedHost(V4("127.0.0.2", 1))), "127.0.0.2");
  EXPECT_EQ(HostText(PackedHost(V6("2001:db8::1", 1))), "2001:db8::1");
  EXPECT_EQ(HostText("odd"), "unknown");
}

// A listener on the loopback address and clients with addresses of their own.
class ResetConnectionsTest : public ::testing::Test {
 protected:
  struct Connection {
    int client, server;
  };

  ResetConnectionsTest() : listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    const sockaddr_storage any = V4("127.0.0.1", 0);
    EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&any),
                   sizeof(sockaddr_in)),
              0);
    EXPECT_EQ(listen(listener_, 8), 0);
    sockaddr_storage bound = {};
    socklen_t size = sizeof(bound);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&bound), &size);
    port_ = PortOf(bound);
  }
  ~ResetConnectionsTest() override {
    for (const int descriptor : open_) close(descriptor);
    close(listener_);
  }
  Connection Connect(const char* from) {
    const int client = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_storage own = V4(from, 0), to = V4("127.0.0.1", port_);
    EXPECT_EQ(bind(client, reinterpret_cast<const sockaddr*>(&own),
                   sizeof(sockaddr_in)),
              0);
    EXPECT_EQ(connect(client, reinterpret_cast<const sockaddr*>(&to),
                      sizeof(sockaddr_in)),
              0);
    const int server = accept(listener_, nullptr, nullptr);
    open_.insert(open_.end(), {client, server});
    return {client, server};
  }

  const int listener_;
  int port_ = 0;
  std::vector<int> open_;
};

TEST_F(ResetConnectionsTest, OnlyThoseOfThePeer) {
  const Connection bad = Connect("127.0.0.2"), good = Connect("127.0.0.1");
  EXPECT_EQ(ResetConnections(port_, PackedHost(V4("127.0.0.2", 0)), kHighest),
            1);
  char byte = 0;
  EXPECT_EQ(recv(bad.client, &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(send(good.client, "x", 1, 0), 1);
  EXPECT_EQ(recv(good.server, &byte, 1, 0), 1);
}

TEST_F(ResetConnectionsTest, WhatWasReceivedIsThrownAwayAndTheOwnerIsTold) {
  const Connection one = Connect("127.0.0.2");
  ASSERT_EQ(send(one.client, "unread", 6, 0), 6);
  EXPECT_EQ(ResetConnections(port_, std::nullopt, kHighest), 1);
  pollfd told = {one.server, POLLIN, 0};
  EXPECT_EQ(poll(&told, 1, 0), 1);
  char byte = 0;
  EXPECT_EQ(recv(one.server, &byte, 1, MSG_DONTWAIT), -1);
}

TEST_F(ResetConnectionsTest, ListenersAndOtherPortsStay) {
  const Connection one = Connect("127.0.0.1");
  EXPECT_EQ(ResetConnections(port_ + 1, std::nullopt, kHighest), 0);
  EXPECT_EQ(send(one.client, "x", 1, 0), 1);
  EXPECT_EQ(ResetConnections(port_, std::nullopt, kHighest), 1);
  Connect("127.0.0.1");
}

using ConnectionsTest = ResetConnectionsTest;

TEST_F(ConnectionsTest, AreListedWithWhatTheirOwnersReadAndSent) {
  const Connection one = Connect("127.0.0.2");
  ASSERT_EQ(send(one.client, "three", 5, 0), 5);
  ASSERT_EQ(send(one.server, "four", 4, 0), 4);
  char bytes[3];
  ASSERT_EQ(recv(one.server, bytes, 3, MSG_WAITALL), 3);
  const auto connections = ListConnections(port_, kHighest);
  ASSERT_EQ(connections.size(), 1u);  // without the listener and the client
  EXPECT_EQ(connections[0].descriptor, one.server);
  EXPECT_EQ(connections[0].host, PackedHost("127.0.0.2"));
  EXPECT_EQ(connections[0].read, 3);
  EXPECT_EQ(connections[0].sent, 4);
  EXPECT_FALSE(connections[0].dead);
  EXPECT_TRUE(ListConnections(port_ + 1, kHighest).empty());
  EXPECT_TRUE(ListConnections(port_, one.server - 1).empty());
}

TEST_F(ConnectionsTest, DeadOnesAreFoundAndTheirOwnersWoken) {
  const Connection one = Connect("127.0.0.2"), other = Connect("127.0.0.2");
  const int edges = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLET;
  ASSERT_EQ(epoll_ctl(edges, EPOLL_CTL_ADD, one.server, &event), 0);
  const linger reset = {1, 0};
  setsockopt(one.client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  ASSERT_EQ(close(one.client), 0);
  std::erase(open_, one.client);
  ASSERT_EQ(epoll_wait(edges, &event, 1, 10000), 1);
  EXPECT_EQ(epoll_wait(edges, &event, 1, 0), 0);  // told once

  const auto connections = ListConnections(port_, kHighest);
  ASSERT_EQ(connections.size(), 2u);
  for (const ConnectionState& connection : connections) {
    EXPECT_EQ(connection.dead, connection.descriptor == one.server);
    EXPECT_EQ(WakeOwner(port_, connection), connection.dead);
  }
  EXPECT_EQ(epoll_wait(edges, &event, 1, 10000), 1);
  EXPECT_EQ(send(other.client, "x", 1, 0), 1);
  char byte = 0;
  EXPECT_EQ(recv(other.server, &byte, 1, 0), 1);
  close(edges);
}

}  // namespace
}  // namespace limpid
