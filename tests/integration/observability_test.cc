// SPDX-License-Identifier: Apache-2.0
//
// What can be seen of calls from outside: identifiers, traces, stage times, log
// lines, metrics.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "absl/strings/str_split.h"
#include "tests/support/in_process_server.h"

namespace limpid::testing {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::UnorderedElementsAre;
using Json = nlohmann::json;

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kParent[] = "b7ad6b7169203331";

class ObservabilityTest : public ::testing::Test {
 protected:
  using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

  grpc::Status Call(grpc::ClientContext& context) {
    v1::ExplainResponse reply;
    return server_.explanations().Explain(&context, TextRequest("abc"), &reply);
  }
  static std::string Value(const Metadata& metadata, const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end()
               ? ""
               : std::string(found->second.data(), found->second.size());
  }
  // The log's lines about requests, after the server has stopped.
  std::vector<Json> RequestLines() {
    server_.Stop();
    std::istringstream lines(server_.LogText());
    std::vector<Json> requests;
    for (std::string line; std::getline(lines, line);) {
      Json json = Json::parse(line);
      if (json.contains("request_id")) requests.push_back(std::move(json));
    }
    return requests;
  }

  InProcessServer server_;
};

TEST_F(ObservabilityTest, TracesAreContinuedLoggedAndSentBack) {
  server_.Start();
  grpc::ClientContext context;
  context.AddMetadata("traceparent",
                      absl::StrCat("00-", kTrace, "-", kParent, "-01"));
  ASSERT_TRUE(Call(context).ok());
  const std::string back =
      Value(context.GetServerInitialMetadata(), "traceparent");
  EXPECT_THAT(back,
              MatchesRegex(absl::StrCat("00-", kTrace, "-[0-9a-f]{16}-01")));
  const std::vector<Json> lines = RequestLines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["trace_id"], kTrace);
  EXPECT_EQ(lines[0]["parent_id"], kParent);
  EXPECT_EQ(lines[0]["span_id"], back.substr(36, 16));
}

TEST_F(ObservabilityTest, StageTimesComeInTheTrailer) {
  server_.Start();
  grpc::ClientContext context;
  ASSERT_TRUE(Call(context).ok());
  const std::string timing =
      Value(context.GetServerTrailingMetadata(), "server-timing");
  std::map<std::string, double> stages;
  for (const std::string& stage :
       std::vector<std::string>(absl::StrSplit(timing, ", "))) {
    const std::vector<std::string> parts = absl::StrSplit(stage, ";dur=");
    ASSERT_EQ(parts.size(), 2u) << timing;
    stages[parts[0]] = std::stod(parts[1]);
  }
  for (const char* stage :
       {"total", "queue", "plan", "compute", "serialize", "send"}) {
    ASSERT_EQ(stages.count(stage), 1u) << timing;
  }
  EXPECT_GT(stages["compute"], 0);
  EXPECT_GE(stages["total"], stages["queue"] + stages["plan"] +
                                 stages["compute"] + stages["serialize"]);
}

TEST_F(ObservabilityTest, FailuresHaveStageTimesToo) {
  server_.engine.run_throws = true;
  server_.Start();
  grpc::ClientContext context;
  ASSERT_FALSE(Call(context).ok());
  EXPECT_THAT(Value(context.GetServerTrailingMetadata(), "server-timing"),
              HasSubstr("total;dur="));
}

TEST_F(ObservabilityTest, SlowRequestsAreWarningsWithEveryStage) {
  server_.options.slow_request = absl::ZeroDuration();
  server_.Start();
  grpc::ClientContext context;
  ASSERT_TRUE(Call(context).ok());
  const std::vector<Json> lines = RequestLines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["message"], "slow request");
  EXPECT_EQ(lines[0]["level"], "warning");
  for (const char* stage : {"total_ms", "queue_ms", "plan_ms", "compute_ms",
                            "serialize_ms", "send_ms"}) {
    EXPECT_TRUE(lines[0].contains(stage)) << stage;
  }
}

TEST_F(ObservabilityTest, MetadataCannotBreakLogLines) {
  server_.Start();
  for (const char* id : {"a\"b\\c{}%s", "\\n\\u0000", "'<script>'"}) {
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", id);
    context.AddMetadata("traceparent", "\"}\\n{\"level\":\"error\"");
    ASSERT_TRUE(Call(context).ok());
    EXPECT_EQ(Value(context.GetServerInitialMetadata(), "x-request-id"), id);
  }
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", std::string(129, 'x'));
  ASSERT_TRUE(Call(context).ok());
  const std::vector<Json> lines = RequestLines();
  // Lines are written once calls are over, which may be in another order.
  std::vector<std::string> ids;
  for (const Json& line : lines) ids.push_back(line["request_id"]);
  EXPECT_THAT(ids,
              UnorderedElementsAre("a\"b\\c{}%s", "\\n\\u0000", "'<script>'",
                                   MatchesRegex("[0-9a-f]{32}")));
  for (const Json& line : lines) {
    EXPECT_EQ(line["level"], "info");
    EXPECT_FALSE(line.contains("parent_id"));
  }
}

TEST_F(ObservabilityTest, GpuMemoryIsMeasuredWithEveryScrape) {
  server_.options.metrics = "127.0.0.1:0";
  server_.Start();
  EXPECT_THAT(server_.Scrape(), ::testing::Not(HasSubstr("gpu_memory_used")));
  server_.engine.device_memory = DeviceMemory{1000, 8000};
  EXPECT_THAT(server_.Scrape(),
              HasSubstr("limpid_gpu_memory_used_bytes{device=\"cpu\"} 1000"));
  server_.engine.device_memory = DeviceMemory{2000, 8000};
  const std::string metrics = server_.Scrape();
  EXPECT_THAT(metrics,
              HasSubstr("limpid_gpu_memory_used_bytes{device=\"cpu\"} 2000"));
  EXPECT_THAT(metrics,
              HasSubstr("limpid_gpu_memory_total_bytes{device=\"cpu\"} 8000"));
}

TEST_F(ObservabilityTest, ConnectionsAreCounted) {
  server_.options.metrics = "127.0.0.1:0";
  server_.Start();
  grpc::ClientContext context;
  ASSERT_TRUE(Call(context).ok());
  EXPECT_THAT(server_.Scrape(),
              HasSubstr("limpid_connections_total{result=\"accepted\"} 1"));
}

// Names in the first column of a Markdown table.
std::set<std::string> DocumentedMetrics() {
  std::ifstream file(LIMPID_SOURCE_DIR "/docs/metrics.md");
  std::set<std::string> names;
  const std::regex row("^\\| `([a-z_]+)`.*");
  std::smatch match;
  for (std::string line; std::getline(file, line);) {
    if (std::regex_match(line, match, row)) names.insert(match[1]);
  }
  return names;
}

TEST_F(ObservabilityTest, TheLogSaysWhatWentWrongWhereItIsOurFault) {
  server_.options.token_file.clear();
  server_.Start();
  server_.engine.run_status = absl::InternalError("a kernel was not launched");
  grpc::ClientContext internal;
  EXPECT_EQ(Call(internal).error_code(), grpc::StatusCode::INTERNAL);
  server_.engine.run_status = absl::InvalidArgumentError("about the caller");
  grpc::ClientContext invalid;
  EXPECT_FALSE(Call(invalid).ok());
  server_.Stop();
  EXPECT_THAT(server_.LogText(), HasSubstr("a kernel was not launched"));
  EXPECT_THAT(server_.LogText(), Not(HasSubstr("about the caller")));
}

TEST_F(ObservabilityTest, DocumentedMetricsAreTheOnesThatAreServed) {
  server_.options.metrics = "127.0.0.1:0";
  server_.engine.device_memory = DeviceMemory{1000, 8000};
  server_.options.token_file.clear();
  server_.Start();
  grpc::ClientContext context, stream_context;
  ASSERT_TRUE(Call(context).ok());
  auto reader =
      server_.explanations().StreamExplain(&stream_context, TextRequest("abc"));
  v1::StreamExplainResponse part;
  while (reader->Read(&part)) {
  }
  ASSERT_TRUE(reader->Finish().ok());
  // Present from the first reload, eviction and copy on only.
  server_.serving().metrics().ModelCopied("a", "cpu", absl::StatusCode::kOk);
  server_.serving().metrics().TokensRead(absl::StatusCode::kOk);
  server_.serving().metrics().ModelEvicted("a");
  std::set<std::string> served;
  std::istringstream lines(server_.Scrape());
  const std::regex type("^# TYPE ([a-z_]+) [a-z]+\r?$");
  std::smatch match;
  for (std::string line; std::getline(lines, line);) {
    if (std::regex_match(line, match, type)) served.insert(match[1]);
  }
  EXPECT_EQ(served, DocumentedMetrics());
}

}  // namespace
}  // namespace limpid::testing
