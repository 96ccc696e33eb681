// SPDX-License-Identifier: Apache-2.0
//
// The load test against a server with the embedded models.
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/process.h"
#include "tests/support/temporary_repository.h"

namespace limpid::testing {
namespace {

using Json = nlohmann::json;

class BenchProcessTest : public ::testing::Test {
 protected:
  // Warnings only: nobody reads the server's log while it runs.
  BenchProcessTest()
      : server_({LIMPID_BIN_DIR "/limpid-server", "--config",
                 Configuration(files_)}) {
    const std::string line = server_.ReadLine(std::chrono::seconds(60));
    address_ = line.substr(line.rfind(' ') + 1);
  }

  static std::string Configuration(TemporaryRepository& files) {
    const Json json = {{"model_repository", LIMPID_SOURCE_DIR "/models"},
                       {"metrics", "off"},
                       {"log", {{"level", "warning"}}}};
    files.AddFile("config.json", json.dump());
    return files.path() + "/config.json";
  }

  ProcessResult Bench(std::vector<std::string> flags) {
    std::vector<std::string> command = {LIMPID_BIN_DIR "/limpid", "--server",
                                        address_, "bench", "--json"};
    command.insert(command.end(), flags.begin(), flags.end());
    return RunProcess(command);
  }

  TemporaryRepository files_;
  Process server_;
  std::string address_;
};

TEST_F(BenchProcessTest, ClosedLoopsOverEveryTextModelHaveNoWrongReply) {
  const ProcessResult result =
      Bench({"--duration", "1s", "--clients", "2", "--lengths", "4,16"});
  EXPECT_EQ(result.exit_status, 0) << result.errors;
  const Json json = Json::parse(result.output);
  EXPECT_GT(json["ok"], 5);
  EXPECT_EQ(json["ok"], json["sent"]);
  EXPECT_GT(json["compute_ms"]["p50"], 0);
  EXPECT_GE(json["latency_ms"]["p50"], json["compute_ms"]["p50"]);
}

TEST_F(BenchProcessTest, OverloadIsRefusedWithRetryInfoAndNothingIsLost) {
  const ProcessResult result =
      Bench({"--model", "sentiment-mamba", "--duration", "2s", "--rate", "3000",
             "--lengths", "64"});
  const Json json = Json::parse(result.output);
  EXPECT_EQ(result.exit_status, 0) << result.output << result.errors;
  EXPECT_GT(json["ok"], 0);
  EXPECT_GT(json["refused"], 0);
  EXPECT_EQ(json["refused"], json["refused_with_retry_info"]);
  EXPECT_EQ(json["lost"], 0);
}

TEST_F(BenchProcessTest, AResidualBeyondTheLimitFailsIt) {
  const ProcessResult result =
      Bench({"--model", "sentiment-mamba", "--duration", "200ms",
             "--max-residual", "0"});
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_GT(Json::parse(result.output)["wrong"], 0);
}

TEST_F(BenchProcessTest, WrongFlagsAndModelsAreRefused) {
  EXPECT_EQ(Bench({"--duration", "soon"}).exit_status, 2);
  EXPECT_EQ(Bench({"--rate", "-1"}).exit_status, 2);
  const ProcessResult unknown = Bench({"--model", "zebra"});
  EXPECT_EQ(unknown.exit_status, 1);
  EXPECT_NE(unknown.errors.find("NOT_FOUND"), std::string::npos);
  EXPECT_EQ(Bench({"--model", "shapes-vim"}).exit_status, 1);
}

}  // namespace
}  // namespace limpid::testing
