// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/trace_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace limpid {
namespace {

using ::testing::MatchesRegex;

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kParent[] = "b7ad6b7169203331";

std::string Header(const std::string& version, const std::string& rest = "") {
  return version + "-" + kTrace + "-" + kParent + "-01" + rest;
}

TEST(TraceContextTest, ContinuesTheCallersTraceWithASpanOfItsOwn) {
  const TraceContext context = ContinueTrace(Header("00"));
  EXPECT_EQ(context.trace_id, kTrace);
  EXPECT_EQ(context.parent_id, kParent);
  EXPECT_NE(context.span_id, kParent);
  EXPECT_EQ(context.ToHeader(),
            "00-" + std::string(kTrace) + "-" + context.span_id + "-01");
}

TEST(TraceContextTest, LaterVersionsMayHaveMoreParts) {
  EXPECT_EQ(ContinueTrace(Header("cc", "-more")).trace_id, kTrace);
  EXPECT_NE(ContinueTrace(Header("00", "-more")).trace_id, kTrace);
}

TEST(TraceContextTest, AnythingElseBeginsANewTrace) {
  const std::string zeros(32, '0');
  for (const std::string& header : std::vector<std::string>{
           std::string(), std::string("junk"), Header("ff"), Header("0"),
           "00-" + zeros + "-b7ad6b7169203331-01",
           "00-" + std::string(kTrace) + "-0000000000000000-01",
           "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
           Header("00").substr(0, 54), std::string(100000, '-')}) {
    const TraceContext context = ContinueTrace(header);
    EXPECT_THAT(context.ToHeader(),
                MatchesRegex("00-[0-9a-f]{32}-[0-9a-f]{16}-00"))
        << header.substr(0, 80);
    EXPECT_EQ(context.parent_id, "");
    EXPECT_NE(context.trace_id, kTrace);
  }
}

}  // namespace
}  // namespace limpid
