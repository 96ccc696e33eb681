// SPDX-License-Identifier: Apache-2.0
//
// The two programs as a user meets them: real models, real sockets, signals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>

#include "tests/support/bfloat16_checkpoint.h"
#include "tests/support/certificates.h"
#include "tests/support/process.h"

namespace limpid {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Process;
using testing::ProcessResult;
using testing::RunProcess;

const std::string kServer = std::string(LIMPID_BIN_DIR) + "/limpid-server";
const std::string kClient = std::string(LIMPID_BIN_DIR) + "/limpid";

// A repository with the embedded models, two golden checkpoints, a damaged
// folder, and files that are no models; and a server for it.
class ProcessTest : public ::testing::Test {
 protected:
  ProcessTest() {
    std::string pattern = ::testing::TempDir() + "/limpid-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    const fs::path models = fs::path(LIMPID_SOURCE_DIR) / "models";
    const fs::path golden = fs::path(LIMPID_TEST_DATA) / "checkpoints";
    fs::create_directory(folder_ / "models");
    for (const auto& source :
         {models / "sentiment-mamba", models / "recall-mamba",
          golden / "mamba-tied"}) {
      fs::create_directory_symlink(source,
                                   folder_ / "models" / source.filename());
    }
    fs::copy(golden / "mamba-bias-untied", folder_ / "models" / "damaged");
    fs::resize_file(folder_ / "models" / "damaged" / "model.safetensors",
                    20000);
    std::ofstream(folder_ / "models" / "notes.txt") << "not a model\n";
  }
  ~ProcessTest() override {
    server_.reset();
    fs::remove_all(folder_);
  }

  void StartServer(const std::vector<std::string>& arguments = {}) {
    std::vector<std::string> command = {
        program_,   "--model-repository", (folder_ / "models").string(),
        "--listen", "127.0.0.1:0",        "--metrics",
        "off",      "--device",           "cpu"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    server_ = std::make_unique<Process>(command);
    const std::string prefix = "limpid-server listening on ";
    const std::string line = server_->ReadLine(seconds(60));
    ASSERT_EQ(line.substr(0, prefix.size()), prefix);
    address_ = line.substr(prefix.size());
  }

  std::vector<std::string> ClientCommand(
      const std::vector<std::string>& arguments) const {
    std::vector<std::string> command = {kClient, "--server", address_};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
  }
  ProcessResult Client(const std::vector<std::string>& arguments) const {
    return RunProcess(ClientCommand(arguments));
  }
  // Arguments of a request that takes many seconds; the client prints a line
  // as soon as the server has begun.
  static std::vector<std::string> LongRequest() {
    std::string text;
    for (int i = 0; i < 300; ++i) text += "an endless and dull story ";
    return {"explain",    "--model",  "sentiment-mamba",      "--text",
            text,         "--method", "integrated-gradients", "--option",
            "steps=1024", "--stream"};
  }

  fs::path folder_;
  std::string program_ = kServer;
  std::unique_ptr<Process> server_;
  std::string address_;
};

TEST_F(ProcessTest, ALostDeviceEndsTheServerAndTellsWhoWaits) {
  program_ = std::string(LIMPID_BIN_DIR) + "/support/losing-server";
  StartServer({"--device", "cpu:0,1"});
  auto command = ClientCommand(LongRequest());
  command.insert(command.end(), {"--attempts", "1"});
  Process waiting(command);
  ASSERT_NE(waiting.ReadLine(seconds(30)), "");
  const ProcessResult lost =
      Client({"explain", "--model", "recall-mamba", "--tokens", "1,2,3",
              "--method", "gradient-norm", "--attempts", "1"});
  EXPECT_EQ(lost.exit_status, 1);
  EXPECT_THAT(lost.errors, HasSubstr("UNAVAILABLE"));
  const ProcessResult ended = server_->Wait(seconds(20));
  EXPECT_EQ(ended.exit_status, 1);
  EXPECT_THAT(ended.errors, HasSubstr("device lost"));
  const ProcessResult other = waiting.Wait(seconds(20));
  EXPECT_EQ(other.exit_status, 1);
  EXPECT_THAT(other.errors, HasSubstr("UNAVAILABLE"));
}

TEST_F(ProcessTest, DamagedFoldersAreListedAndDoNotKeepOthersFromServing) {
  StartServer();
  const ProcessResult models = Client({"models"});
  EXPECT_EQ(models.exit_status, 0) << models.errors;
  EXPECT_THAT(models.output, HasSubstr("sentiment-mamba"));
  EXPECT_THAT(models.output, HasSubstr("recall-mamba"));
  EXPECT_THAT(models.output, HasSubstr("damaged"));
  EXPECT_THAT(models.output, HasSubstr("model.safetensors"));
  EXPECT_THAT(models.output, Not(HasSubstr("notes.txt")));
  const ProcessResult refused =
      Client({"explain", "--model", "damaged", "--tokens", "1,2"});
  EXPECT_EQ(refused.exit_status, 1);
  EXPECT_THAT(refused.errors, HasSubstr("DATA_LOSS"));
  EXPECT_THAT(refused.errors, HasSubstr("model.safetensors"));
  EXPECT_EQ(Client({"explain", "--model", "mamba-tied", "--tokens", "1,2"})
                .exit_status,
            0);
}

TEST_F(ProcessTest, ExplainSavesPicturesAndTensors) {
  StartServer();
  const std::string out = (folder_ / "out").string();
  const ProcessResult result =
      Client({"explain", "--model", "sentiment-mamba", "--text",
              "A gorgeous, witty, seductive movie.", "--out", out});
  EXPECT_EQ(result.exit_status, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr("gorge"));
  for (const char* name : {"explanation.safetensors", "explanation.json",
                           "attribution.png", "report.html"}) {
    EXPECT_TRUE(fs::exists(fs::path(out) / name)) << name;
  }
}

TEST_F(ProcessTest, ExplainPrintsWhatAPrecisionCosts) {
  testing::CopyAsBfloat16(LIMPID_TEST_DATA "/checkpoints/mamba-tied",
                          (folder_ / "models" / "short").string());
  StartServer();
  const auto explain = [&](const std::string& precision) {
    return Client({"explain", "--model", "short", "--tokens", "1,2,3",
                   "--precision", precision});
  };
  const ProcessResult rounded = explain("checkpoint");
  EXPECT_EQ(rounded.exit_status, 0) << rounded.errors;
  EXPECT_THAT(rounded.output, HasSubstr("bfloat16 operands, logits off by 0."));
  EXPECT_THAT(explain("fast").output,
              HasSubstr("float32 operands, logits off by 0\n"));
  EXPECT_THAT(explain("float32").output, Not(HasSubstr("operands")));
}

TEST_F(ProcessTest, RefusalsNameCodeAndFields) {
  StartServer();
  const ProcessResult unknown =
      Client({"explain", "--model", "nobody", "--text", "x"});
  EXPECT_EQ(unknown.exit_status, 1);
  EXPECT_THAT(unknown.errors, HasSubstr("NOT_FOUND"));
  EXPECT_THAT(unknown.errors, HasSubstr("sentiment-mamba"));
  const ProcessResult many =
      Client({"explain", "--model", "mamba-tied", "--tokens", "1,99",
              "--method", "magic", "--layers", "0,7"});
  EXPECT_EQ(many.exit_status, 1);
  EXPECT_THAT(many.errors, HasSubstr("INVALID_ARGUMENT"));
  EXPECT_THAT(many.errors, HasSubstr("input.tokens.ids[1]"));
  EXPECT_THAT(many.errors, HasSubstr("method"));
  EXPECT_THAT(many.errors, HasSubstr("raw-attention"));
  EXPECT_THAT(many.errors, HasSubstr("attention.layers[1]"));
  const ProcessResult empty =
      Client({"explain", "--model", "sentiment-mamba", "--text", ""});
  EXPECT_EQ(empty.exit_status, 1);
  EXPECT_THAT(empty.errors, HasSubstr("input.text"));
  const ProcessResult bytes =
      Client({"explain", "--model", "sentiment-mamba", "--text", "caf\xe9"});
  EXPECT_EQ(bytes.exit_status, 1);
  EXPECT_THAT(bytes.errors, HasSubstr("INVALID_ARGUMENT"));
  EXPECT_THAT(bytes.errors, HasSubstr("input.text"));
  EXPECT_EQ(Client({"health"}).exit_status, 0);
}

// What is wrong with how an attribution is asked for, one by one: the code, the
// field, what is allowed, and no file.
TEST_F(ProcessTest, WrongAttributionsAreRefusedByTheirFields) {
  StartServer();
  struct Wrong {
    std::vector<std::string> arguments;
    std::string field, allowed;
  };
  const auto with = [](const std::string& method, const std::string& option) {
    return std::vector<std::string>{"--method", method, "--option", option};
  };
  const std::string integrated = "integrated-gradients";
  const std::vector<Wrong> list = {
      {with(integrated, "steps=0"), "options.steps", "8 to 1024"},
      {with(integrated, "steps=1000000000"), "options.steps", "8 to 1024"},
      {with(integrated, "baseline=tokens:1,2"), "options.baseline.tokens.ids",
       "the input has 3"},
      {with(integrated, "baseline=token:37"), "options.baseline.token_id",
       "0 to 36"},
      {with(integrated, "baseline=blur"), "options.baseline.blur", "pictures"},
      {with("occlusion", "steps=64"), "options.steps",
       "baseline, occlusion_window"},
      {with("raw-attention", "norm=1"), "options.norm", "start_layer"},
      {with("alti", "start-layer=2"), "options.start_layer", "0 to 1"},
      {{"--aggregate", "span:1-3"}, "aggregation.spans[0]", "3 tokens"},
      {{"--target", "contrast:5,5"},
       "points[0].target.contrast.baseline_id",
       "a contrast needs two"},
      {{"--target", "token:37"}, "points[0].target.token_id", "0 to 36"},
      {{"--position", "3"}, "points[0].position.index", "0 to 2"}};
  const fs::path file = folder_ / "refused.safetensors";
  for (const Wrong& wrong : list) {
    std::vector<std::string> arguments = {"explain",    "--model", "mamba-tied",
                                          "--tokens",   "1,2,3",   "--save",
                                          file.string()};
    arguments.insert(arguments.end(), wrong.arguments.begin(),
                     wrong.arguments.end());
    const ProcessResult result = Client(arguments);
    EXPECT_EQ(result.exit_status, 1) << wrong.field;
    EXPECT_THAT(result.errors, HasSubstr("INVALID_ARGUMENT"));
    EXPECT_THAT(result.errors, HasSubstr(wrong.field));
    EXPECT_THAT(result.errors, HasSubstr(wrong.allowed));
    EXPECT_FALSE(fs::exists(file)) << wrong.field;
  }
}

TEST_F(ProcessTest, WeightsThatAreNotFiniteAreNamed) {
  const fs::path folder = folder_ / "models" / "poisoned";
  fs::copy(fs::path(LIMPID_TEST_DATA) / "checkpoints" / "mamba-tied", folder);
  const fs::path weights = folder / "model.safetensors";
  const auto size = static_cast<std::streamoff>(fs::file_size(weights));
  std::fstream file(weights, std::ios::in | std::ios::out | std::ios::binary);
  const float nan = std::nanf("");
  file.seekp(size - static_cast<std::streamoff>(sizeof(nan)));
  file.write(reinterpret_cast<const char*>(&nan), sizeof(nan));
  file.close();
  StartServer();
  const ProcessResult refused =
      Client({"explain", "--model", "poisoned", "--tokens", "1,2"});
  EXPECT_EQ(refused.exit_status, 1);
  EXPECT_THAT(refused.errors, HasSubstr("DATA_LOSS"));
  EXPECT_THAT(refused.errors, HasSubstr("model.safetensors holds NaN"));
  EXPECT_EQ(Client({"explain", "--model", "mamba-tied", "--tokens", "1,2"})
                .exit_status,
            0);
}

TEST_F(ProcessTest, EvaluateJudgesMethodsAndWritesItsResults) {
  StartServer();
  const std::string out = (folder_ / "grounding").string();
  // Few items: nobody reads the server's log meanwhile.
  const std::vector<std::string> command = {
      "evaluate", "grounding", "--model",  "recall-mamba", "--items",
      "5",        "--option",  "steps=16", "--out",        out};
  const ProcessResult result = Client(command);
  EXPECT_EQ(result.exit_status, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr("| raw-attention, form full | "));
  EXPECT_THAT(result.output, HasSubstr("| shuffled: "));
  for (const char* name : {"results.json", "table.md", "intervals.svg"}) {
    EXPECT_TRUE(fs::exists(fs::path(out) / name)) << name;
  }
  EXPECT_EQ(Client(command).output, result.output);
  const ProcessResult refused =
      Client({"evaluate", "segmentation", "--model", "recall-mamba", "--data",
              folder_.string()});
  EXPECT_EQ(refused.exit_status, 1);
  EXPECT_THAT(refused.errors, HasSubstr("segmentation"));
}

TEST_F(ProcessTest, RequestsBeyondTheLimitsAreRefusedBeforeComputing) {
  std::ofstream(folder_ / "config.json") << R"({"limits": {"max_tokens": 100,
                        "max_request_memory_bytes": 1048576}})";
  StartServer({"--config", (folder_ / "config.json").string()});
  std::string ids = "1";
  for (int i = 1; i < 100; ++i) ids += ",1";
  const ProcessResult large =
      Client({"explain", "--model", "sentiment-mamba", "--tokens", ids,
              "--attention", "matrix", "--channels", "all"});
  EXPECT_EQ(large.exit_status, 1);
  EXPECT_THAT(large.errors, HasSubstr("FAILED_PRECONDITION"));
  EXPECT_THAT(large.errors, HasSubstr("REQUEST_TOO_LARGE"));
  ids += ",1";
  const ProcessResult long_input =
      Client({"explain", "--model", "sentiment-mamba", "--tokens", ids});
  EXPECT_EQ(long_input.exit_status, 1);
  EXPECT_THAT(long_input.errors, HasSubstr("INVALID_ARGUMENT"));
  EXPECT_THAT(long_input.errors, HasSubstr("input.tokens"));
  EXPECT_THAT(long_input.errors, HasSubstr("100"));
}

TEST_F(ProcessTest, APassedDeadlineIsSaidSo) {
  StartServer();
  std::vector<std::string> command = LongRequest();
  command.insert(command.begin(), {"--deadline", "1ms"});
  const ProcessResult result = Client(command);
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_THAT(result.errors, HasSubstr("DEADLINE_EXCEEDED"));
  EXPECT_EQ(Client({"health"}).exit_status, 0);
}

TEST_F(ProcessTest, InterruptingTheClientCancelsItsCall) {
  StartServer();
  Process client(ClientCommand(LongRequest()));
  ASSERT_NE(client.ReadLine(seconds(30)), "");
  client.Signal(SIGINT);
  EXPECT_EQ(client.Wait(seconds(10)).exit_status, 130);
  EXPECT_TRUE(server_->WaitForError("CANCELLED", seconds(10)));
  EXPECT_EQ(Client({"health"}).exit_status, 0);
}

TEST_F(ProcessTest, TerminationWithoutRequestsIsQuick) {
  StartServer();
  server_->Signal(SIGTERM);
  const ProcessResult result = server_->Wait(seconds(15));
  EXPECT_EQ(result.exit_status, 0) << result.errors;
}

TEST_F(ProcessTest, TerminationGivesRunningRequestsTheirGrace) {
  std::ofstream(folder_ / "config.json") << R"({"drain_seconds": 1})";
  StartServer({"--config", (folder_ / "config.json").string()});
  Process client(ClientCommand(LongRequest()));
  ASSERT_NE(client.ReadLine(seconds(30)), "");
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(seconds(15)).exit_status, 0);
  const ProcessResult result = client.Wait(seconds(30));
  EXPECT_EQ(result.exit_status, 1);
}

TEST_F(ProcessTest, ASecondSignalEndsTheServerAtOnce) {
  StartServer();
  Process client(ClientCommand(LongRequest()));
  ASSERT_NE(client.ReadLine(seconds(30)), "");
  server_->Signal(SIGTERM);
  ASSERT_TRUE(server_->WaitForError("draining", seconds(10)));
  const auto start = std::chrono::steady_clock::now();
  server_->Signal(SIGTERM);
  EXPECT_NE(server_->Wait(seconds(15)).exit_status, 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(5));
}

TEST_F(ProcessTest, MutualTlsAndTokensFromEndToEnd) {
  const auto write = [&](const std::string& name, const std::string& text) {
    const std::string path = (folder_ / name).string();
    std::ofstream(path) << text;
    return path;
  };
  const testing::Identity authority = testing::MakeAuthority("authority");
  const testing::Identity server = testing::Issue(authority, "server");
  const testing::Identity client = testing::Issue(authority, "client");
  const std::string ca = write("ca.crt", authority.certificate);
  const std::string config =
      R"({"tls": {"certificate_file": ")" +
      write("server.crt", server.certificate) + R"(", "key_file": ")" +
      write("server.key", server.key) + R"(", "client_ca_file": ")" + ca +
      R"("}, "token_file": ")" +
      write("tokens", "alice explain alice-0123456789abcdef\n") + R"("})";
  StartServer({"--config", write("config.json", config)});
  const std::string token = write("token", "alice-0123456789abcdef\n");
  const std::vector<std::string> tls = {
      "--ca",   ca,
      "--cert", write("client.crt", client.certificate),
      "--key",  write("client.key", client.key)};
  const auto run = [&](std::vector<std::string> flags,
                       const std::vector<std::string>& command) {
    flags.insert(flags.end(), command.begin(), command.end());
    return Client(flags);
  };
  std::vector<std::string> both = tls;
  both.insert(both.end(), {"--token-file", token});
  EXPECT_EQ(run(both, {"models"}).exit_status, 0);
  const ProcessResult anonymous = run(tls, {"models"});
  EXPECT_EQ(anonymous.exit_status, 1);
  EXPECT_THAT(anonymous.errors, HasSubstr("UNAUTHENTICATED"));
  const ProcessResult load = run(both, {"load", "mamba-tied"});
  EXPECT_EQ(load.exit_status, 1);
  EXPECT_THAT(load.errors, HasSubstr("PERMISSION_DENIED"));
  EXPECT_THAT(run({"--ca", ca, "--deadline", "5s"}, {"models"}).errors,
              HasSubstr("UNAVAILABLE"));
  EXPECT_EQ(run({"--cert", tls[3]}, {"models"}).exit_status, 2);
}

TEST_F(ProcessTest, WrongSettingsAreAllNamed) {
  const ProcessResult result =
      RunProcess({kServer, "--model-repository", "/nowhere/at/all", "--listen",
                  "nonsense", "--device", "abacus"});
  EXPECT_EQ(result.exit_status, 2);
  EXPECT_THAT(result.errors, HasSubstr("/nowhere/at/all"));
  EXPECT_THAT(result.errors, HasSubstr("nonsense"));
  EXPECT_THAT(result.errors, HasSubstr("abacus"));
  const ProcessResult device =
      RunProcess({kServer, "--model-repository", (folder_ / "models").string(),
                  "--device", "cuda:99"});
  EXPECT_EQ(device.exit_status, 2);
  EXPECT_THAT(device.errors, HasSubstr("cuda:99"));
  EXPECT_EQ(RunProcess({kClient, "explain", "--sideways"}).exit_status, 2);
}

TEST_F(ProcessTest, ATakenPortIsAnError) {
  StartServer();
  const ProcessResult result =
      RunProcess({kServer, "--model-repository", (folder_ / "models").string(),
                  "--listen", address_, "--metrics", "off", "--device", "cpu"});
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_THAT(result.errors, HasSubstr(address_));
}

}  // namespace
}  // namespace limpid
