// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/acceptor.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <limits>
#include <mutex>

namespace limpid {
namespace {

using ::testing::HasSubstr;

constexpr int kNoLimit = std::numeric_limits<int>::max();

// Connected to a port of the loopback address; -1 if nobody listens there.
int ConnectTo(const std::string& address) {
  sockaddr_in where = {};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  where.sin_port = htons(static_cast<uint16_t>(ParseHostPort(address)->port));
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&where), sizeof(where)) == 0) {
    return fd;
  }
  close(fd);
  return -1;
}

class AcceptorTest : public ::testing::Test {
 protected:
  ~AcceptorTest() override {
    acceptor_.reset();
    for (const int fd : accepted_) close(fd);
    for (const int fd : clients_) close(fd);
  }
  void Open(int max_descriptor = kNoLimit) {
    auto opened = Acceptor::Open({"127.0.0.1", 0}, max_descriptor);
    ASSERT_TRUE(opened.ok()) << opened.status();
    acceptor_ = *std::move(opened);
    acceptor_->Start(
        [this](int fd) {
          std::lock_guard lock(mutex_);
          accepted_.push_back(fd);
          changed_.notify_all();
        },
        [this] {
          std::lock_guard lock(mutex_);
          ++num_refused_;
          changed_.notify_all();
        });
  }
  void Connect() { clients_.push_back(ConnectTo(acceptor_->address())); }
  template <typename F>
  void WaitFor(F condition) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, condition);
  }

  std::unique_ptr<Acceptor> acceptor_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int> accepted_, clients_;
  int num_refused_ = 0;
};

TEST_F(AcceptorTest, HandsConnectionsOver) {
  Open();
  for (int i = 0; i < 10; ++i) Connect();
  WaitFor([&] { return accepted_.size() == 10; });
}

TEST_F(AcceptorTest, ClosesConnectionsBeyondItsLimit) {
  Open(0);
  Connect();
  WaitFor([&] { return num_refused_ == 1; });
  char byte = 0;
  EXPECT_EQ(read(clients_[0], &byte, 1), 0);
}

TEST_F(AcceptorTest, BarredPeersAreResetAndRefusedForAWhile) {
  Open();
  Connect();
  WaitFor([&] { return accepted_.size() == 1; });
  const std::string loopback("\x7f\0\0\1", 4);
  acceptor_->Bar(loopback, absl::InfiniteFuture());
  char byte = 0;
  EXPECT_EQ(read(clients_[0], &byte, 1), -1);
  Connect();
  WaitFor([&] { return num_refused_ == 1; });
  EXPECT_EQ(read(clients_[1], &byte, 1), 0);
  acceptor_->Bar(loopback, absl::InfinitePast());
  Connect();
  WaitFor([&] { return accepted_.size() == 2; });
}

TEST_F(AcceptorTest, TakenPortsAreErrors) {
  Open();
  const auto second =
      Acceptor::Open(*ParseHostPort(acceptor_->address()), kNoLimit);
  EXPECT_EQ(GetErrorDetails(second.status()).reason, "LISTEN_FAILED");
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("Address already in use"));
}

TEST_F(AcceptorTest, NamesWithoutAddressAreErrors) {
  EXPECT_EQ(
      Acceptor::Open({"no.such.host.invalid", 0}, kNoLimit).status().code(),
      absl::StatusCode::kFailedPrecondition);
}

TEST_F(AcceptorTest, NobodyListensAfterStop) {
  Open();
  const std::string address = acceptor_->address();
  acceptor_->Stop();
  EXPECT_EQ(ConnectTo(address), -1);
}

TEST_F(AcceptorTest, SurvivesRunningOutOfDescriptors) {
  Open();
  // Made before, so that it waits when no descriptor is free.
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(client) + 1;
  std::vector<int> holes;  // below the limit
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  for (int fd = dup(client); fd >= 0; fd = dup(client)) holes.push_back(fd);
  sockaddr_in where = {};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  where.sin_port =
      htons(static_cast<uint16_t>(ParseHostPort(acceptor_->address())->port));
  EXPECT_EQ(connect(client, reinterpret_cast<sockaddr*>(&where), sizeof(where)),
            0);
  {
    std::lock_guard lock(mutex_);
    EXPECT_TRUE(accepted_.empty());
  }
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  WaitFor([&] { return accepted_.size() == 1; });
  for (const int fd : holes) close(fd);
  close(client);
}

TEST(DescriptorCapsTest, ProbesGetMoreThanOthers) {
  const DescriptorCaps few = MakeDescriptorCaps(10);
  const DescriptorCaps many = MakeDescriptorCaps(kNoLimit);
  EXPECT_LT(few.ordinary, few.probes);
  EXPECT_LT(many.ordinary, many.probes);
  EXPECT_LT(few.ordinary, many.ordinary);
  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_LE(static_cast<rlim_t>(many.probes), limit.rlim_cur);
}

}  // namespace
}  // namespace limpid
