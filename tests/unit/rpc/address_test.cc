// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/address.h"

#include <gtest/gtest.h>

namespace limpid {
namespace {

TEST(AddressTest, ParsesHostsAndPorts) {
  EXPECT_EQ(ParseHostPort("127.0.0.1:80")->ToString(), "127.0.0.1:80");
  EXPECT_EQ(ParseHostPort("[::1]:0")->host, "::1");
  EXPECT_EQ(ParseHostPort("[::1]:0")->ToString(), "[::1]:0");
  for (const char* wrong : {"", "127.0.0.1", ":80", "h:", "h:x", "h:65536",
                            "::1:80", "h:-1", "a b:1", "unix:/x:1"}) {
    EXPECT_FALSE(ParseHostPort(wrong).ok()) << wrong;
  }
}

TEST(AddressTest, KnowsLoopback) {
  for (const char* near : {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1",
                           "localhost:1", "LocalHost:1"}) {
    EXPECT_TRUE(IsLoopback(*ParseHostPort(near))) << near;
  }
  for (const char* far :
       {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "128.0.0.1:1"}) {
    EXPECT_FALSE(IsLoopback(*ParseHostPort(far))) << far;
  }
}

}  // namespace
}  // namespace limpid
