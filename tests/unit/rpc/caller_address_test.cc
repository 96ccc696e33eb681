// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/caller_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/rpc/peers.h"

namespace limpid {
namespace {

using ::testing::HasSubstr;

std::vector<AddressRange> Ranges(const std::vector<const char*>& texts) {
  std::vector<AddressRange> ranges;
  for (const char* text : texts) ranges.push_back(*AddressRange::Parse(text));
  return ranges;
}

TEST(AddressRangeTest, HoldsAddressesWithItsFirstBits) {
  const struct {
    const char* range;
    std::vector<const char*> in, out;
  } cases[] = {
      {"192.0.2.1", {"192.0.2.1", "::ffff:192.0.2.1"}, {"192.0.2.2", "::1"}},
      {"10.0.0.0/8", {"10.0.0.0", "10.255.255.255"}, {"9.0.0.0", "11.0.0.0"}},
      {"172.16.0.0/12", {"172.16.0.1", "172.31.9.9"}, {"172.32.0.0"}},
      {"0.0.0.0/0", {"1.2.3.4"}, {"::1"}},
      {"::/0", {"::1", "2001:db8::1"}, {"1.2.3.4"}},
      {"fc00::/7", {"fc00::1", "fdff::1"}, {"fe00::1", "2001:db8::1"}},
      {"::1", {"::1"}, {"::2", "127.0.0.1"}},
  };
  for (const auto& c : cases) {
    const std::vector<AddressRange> range = Ranges({c.range});
    for (const char* in : c.in) {
      EXPECT_TRUE(AnyContains(range, PackedHost(in))) << in << " " << c.range;
    }
    for (const char* out : c.out) {
      EXPECT_FALSE(AnyContains(range, PackedHost(out)))
          << out << " " << c.range;
    }
    EXPECT_FALSE(AnyContains(range, PackedHost("no address"))) << c.range;
  }
}

TEST(AddressRangeTest, MistakesAreNamed) {
  for (const char* wrong : {"", "/8", "10.0.0", "10.0.0.0.0", "localhost",
                            "10.0.0.0:80", "[::1]", "10.0.0.0/8/8"}) {
    EXPECT_FALSE(AddressRange::Parse(wrong).ok()) << wrong;
  }
  for (const char* wrong : {"10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "::/129",
                            "::ffff:10.0.0.0/104", "10.0.0.0/0008"}) {
    EXPECT_THAT(std::string(AddressRange::Parse(wrong).status().message()),
                HasSubstr("prefix"))
        << wrong;
  }
  EXPECT_THAT(
      std::string(AddressRange::Parse("10.0.0.1/31").status().message()),
      HasSubstr("\"10.0.0.1/31\" has bits set beyond the first 31"));
}

TEST(CallerAddressTest, IsThePeersUnlessAProxyIsTrusted) {
  for (const auto& [peer, host] :
       std::vector<std::pair<const char*, const char*>>{
           {"ipv4:192.0.2.1:50000", "192.0.2.1"},
           {"ipv6:%5B2001:db8::1%5D:50000", "2001:db8::1"},
           {"ipv6:[2001:db8::1]:50000", "2001:db8::1"},
           {"ipv6:%5B::ffff:192.0.2.1%5D:50000", "192.0.2.1"},
           {"unix:/run/socket", "unix:/run/socket"},
           {"", ""}}) {
    EXPECT_EQ(CallerAddress(peer, {}, {}), host);
    EXPECT_EQ(CallerAddress(peer, {"198.51.100.1"}, {}), host);
    EXPECT_EQ(CallerAddress(peer, {"198.51.100.1"}, Ranges({"10.0.0.0/8"})),
              host);
  }
}

TEST(CallerAddressTest, TrustedProxiesSayWhoseCallsTheyPassOn) {
  const std::vector<AddressRange> trusted = Ranges({"10.0.0.0/8", "::1"});
  const auto caller = [&](const std::vector<absl::string_view>& forwarded) {
    return CallerAddress("ipv4:10.0.0.1:50000", forwarded, trusted);
  };
  EXPECT_EQ(caller({}), "10.0.0.1");
  EXPECT_EQ(caller({"192.0.2.1"}), "192.0.2.1");
  EXPECT_EQ(caller({" 192.0.2.1:443 "}), "192.0.2.1");
  EXPECT_EQ(caller({"[2001:db8::1]:443"}), "2001:db8::1");
  EXPECT_EQ(caller({"2001:db8::1"}), "2001:db8::1");
  // Through several.
  EXPECT_EQ(caller({"192.0.2.1, 10.0.0.3,::1"}), "192.0.2.1");
  EXPECT_EQ(caller({"192.0.2.1, 10.0.0.3", "10.0.0.2"}), "192.0.2.1");
  // Everybody is trusted: the first is as far as it goes.
  EXPECT_EQ(caller({"10.0.0.3, 10.0.0.2"}), "10.0.0.3");
  EXPECT_EQ(CallerAddress("ipv6:%5B::1%5D:50000", {"192.0.2.1"}, trusted),
            "192.0.2.1");
}

TEST(CallerAddressTest, WhatCallersMakeUpCountsForNothing) {
  const std::vector<AddressRange> trusted = Ranges({"10.0.0.0/8"});
  const auto caller = [&](const std::vector<absl::string_view>& forwarded) {
    return CallerAddress("ipv4:10.0.0.1:50000", forwarded, trusted);
  };
  EXPECT_EQ(caller({"198.51.100.1, 192.0.2.1"}), "192.0.2.1");
  EXPECT_EQ(caller({"198.51.100.1", "192.0.2.1"}), "192.0.2.1");
  EXPECT_EQ(caller({"198.51.100.1, 192.0.2.1, 10.0.0.2"}), "192.0.2.1");
  for (const char* odd : {"nobody", "", ",", "unknown", "_hidden", "[::1",
                          "198.51.100.1, ", "192.0.2.1, nobody"}) {
    EXPECT_EQ(caller({odd}), "10.0.0.1") << odd;
  }
  EXPECT_EQ(caller({"nobody, 10.0.0.2"}), "10.0.0.2");
}

}  // namespace
}  // namespace limpid
