// SPDX-License-Identifier: Apache-2.0
//
// Peers that open streams and reset them at once (CVE-2023-44487), or send
// header blocks that never end (CVE-2024-27316), and another one beside them.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/rpc/address.h"
#include "tests/support/in_process_server.h"

namespace limpid {
namespace {

using std::chrono::steady_clock;
using ::testing::HasSubstr;
using testing::InProcessServer;
using testing::TextRequest;

// What a guard tells of comes a moment after it acts.
void ExpectSoon(const std::string& what,
                const std::function<std::string()>& read) {
  const auto limit = steady_clock::now() + std::chrono::seconds(10);
  std::string text = read();
  while (text.find(what) == std::string::npos && steady_clock::now() < limit) {
    std::this_thread::yield();
    text = read();
  }
  EXPECT_THAT(text, HasSubstr(what));
}

constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr int kHeaders = 1, kReset = 3, kSettings = 4, kContinuation = 9;
constexpr int kEndHeaders = 4;

std::string BigEndian(uint32_t value, int num_bytes) {
  std::string bytes;
  for (int i = num_bytes - 1; i >= 0; --i) {
    bytes += static_cast<char>(value >> (8 * i));
  }
  return bytes;
}

std::string Frame(int kind, int flags, uint32_t stream,
                  const std::string& payload) {
  return BigEndian(static_cast<uint32_t>(payload.size()), 3) +
         static_cast<char>(kind) + static_cast<char>(flags) +
         BigEndian(stream, 4) + payload;
}

// Fields as HPACK literals.
std::string HeaderBlock() {
  std::string block;
  for (const auto& [name, value] :
       {std::pair<std::string, std::string>{":method", "POST"},
        {":scheme", "http"},
        {":path", "/limpid.v1.ExplanationService/Explain"},
        {":authority", "test"},
        {"content-type", "application/grpc"},
        {"te", "trailers"}}) {
    block += '\0';
    for (const std::string& text : {name, value}) {
      block += static_cast<char>(text.size()) + text;
    }
  }
  return block;
}

// A connection to a server on the loopback address, from another one.
class Peer {
 public:
  explicit Peer(const std::string& server)
      : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in own = {}, to = {};
    own.sin_family = to.sin_family = AF_INET;
    inet_pton(AF_INET, "127.0.0.2", &own.sin_addr);
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    to.sin_port = htons(static_cast<uint16_t>(ParseHostPort(server)->port));
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&own), sizeof(own)), 0);
    EXPECT_EQ(connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof(to)),
              0);
  }
  ~Peer() { close(socket_); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  // False if the connection has ended.
  bool Send(const std::string& bytes) const {
    return send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  // Whether the server closes the connection without a word.
  bool IsRefused() const {
    char byte = 0;
    return recv(socket_, &byte, 1, 0) <= 0;
  }

 private:
  const int socket_;
};

// Opens streams and resets them until the server ends the connection, `most` at
// most; how many it took.
uint32_t ResetStreams(const Peer& peer, uint32_t most) {
  const std::string block = HeaderBlock();
  EXPECT_TRUE(peer.Send(kPreface + Frame(kSettings, 0, 0, "")));
  const auto limit = steady_clock::now() + std::chrono::seconds(60);
  for (uint32_t count = 0; count < most; ++count) {
    EXPECT_LT(steady_clock::now(), limit);
    const uint32_t stream = 2 * count + 1;
    if (steady_clock::now() >= limit ||
        !peer.Send(Frame(kHeaders, kEndHeaders, stream, block) +
                   Frame(kReset, 0, stream, BigEndian(8, 4)))) {
      return count;
    }
  }
  return most;
}

TEST(ResetStreamsTest, BarThePeerAndNobodyElse) {
  InProcessServer server;
  server.options.metrics = "127.0.0.1:0";
  server.options.rpc.connections.max_resets_per_second = 100;
  server.Start();
  const Peer peer(server.serving().address());
  ResetStreams(peer, UINT32_MAX / 2);
  EXPECT_TRUE(Peer(server.serving().address()).IsRefused());
  EXPECT_TRUE(server.Explain(TextRequest("abc")).ok());
  ExpectSoon("limpid_barred_peers_total 1", [&] { return server.Scrape(); });
  ExpectSoon("127.0.0.2", [&] { return server.LogText(); });
}

TEST(ResetStreamsTest, OfATrustedProxyBarNobody) {
  InProcessServer server;
  server.options.metrics = "127.0.0.1:0";
  server.options.rpc.connections.max_resets_per_second = 1;
  server.options.rpc.connections.trusted_proxies = {
      *AddressRange::Parse("127.0.0.2")};
  server.Start();
  for (int looks = 0; looks < 10; ++looks) {
    const Peer peer(server.serving().address());
    EXPECT_EQ(ResetStreams(peer, 1000), 1000u);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_THAT(server.Scrape(), HasSubstr("limpid_barred_peers_total 0"));
}

TEST(FloodTest, HeaderBlocksThatNeverEndBarThePeer) {
  InProcessServer server;
  server.options.metrics = "127.0.0.1:0";
  server.Start();
  const Peer peer(server.serving().address());
  ASSERT_TRUE(peer.Send(kPreface + Frame(kSettings, 0, 0, "") +
                        Frame(kHeaders, 0, 1, HeaderBlock())));
  // A field of 16,000 bytes, the length as HPACK has it.
  const std::string piece =
      Frame(kContinuation, 0, 1,
            std::string("\0\1x\x7f\x81\x7c", 6) + std::string(16000, 'y'));
  const auto limit = steady_clock::now() + std::chrono::seconds(60);
  while (peer.Send(piece)) ASSERT_LT(steady_clock::now(), limit);
  EXPECT_TRUE(Peer(server.serving().address()).IsRefused());
  EXPECT_TRUE(server.Explain(TextRequest("abc")).ok());
  ExpectSoon("limpid_barred_peers_total 1", [&] { return server.Scrape(); });
  ExpectSoon("flooding", [&] { return server.LogText(); });
}

TEST(FloodTest, LargeRequestsAtTheSameTimeAreNone) {
  InProcessServer server;
  server.options.metrics = "127.0.0.1:0";
  server.Start();
  v1::ExplainRequest request = TextRequest("");
  request.mutable_input()->set_image(std::string(15 << 20, 'x'));
  std::vector<std::future<grpc::Status>> calls;
  for (int i = 0; i < 12; ++i) {
    calls.push_back(std::async(std::launch::async, [&server, &request] {
      return server.Explain(request);
    }));
  }
  for (auto& call : calls) {
    EXPECT_NE(call.get().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  EXPECT_THAT(server.Scrape(), HasSubstr("limpid_barred_peers_total 0"));
}

}  // namespace
}  // namespace limpid
