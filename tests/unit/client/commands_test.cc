// SPDX-License-Identifier: Apache-2.0
//
// Commands against a server whose answers the test sets: what is printed, what
// is written, how they exit.
#include "client/cli/commands.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_explanation_service.h"

namespace limpid::cli {
namespace {

using nlohmann::json;
using testing::FakeHandlers;
using testing::FakeServer;
using ::testing::HasSubstr;
using testing::MakeResponse;
using ::testing::Not;
using testing::StreamWriter;

struct Outcome {
  int code;
  std::string out, err;
};

class CommandsTest : public ::testing::Test {
 protected:
  CommandsTest() {
    handlers_.explain = [this](auto&, const v1::ExplainRequest& request,
                               v1::ExplainResponse& response) {
      ++explained_;
      if (request.input().text().empty() &&
          request.input().tokens().ids().empty()) {
        return testing::MakeError(grpc::StatusCode::INVALID_ARGUMENT,
                                  "INVALID_REQUEST", "wrong",
                                  {{"input.text", "is empty"}});
      }
      response = response_;
      return grpc::Status::OK;
    };
    handlers_.stream = [this](auto&, const auto&, StreamWriter& writer) {
      for (const auto& part : testing::MakeStream(response_, 4)) {
        writer.Write(part);
      }
      return grpc::Status::OK;
    };
    v1::Model ready, broken;
    ready.set_name("sentiment-mamba");
    ready.set_state(v1::MODEL_STATE_READY);
    ready.set_architecture("mamba");
    ready.set_modality(v1::MODALITY_TEXT);
    broken.set_name("broken");
    broken.set_state(v1::MODEL_STATE_FAILED);
    broken.set_state_reason("no tensor \x1b[2J");
    handlers_.models = {broken, ready};
    handlers_.model = [ready](const std::string& name, v1::Model& model) {
      if (name != ready.name()) {
        return testing::MakeError(grpc::StatusCode::NOT_FOUND,
                                  "MODEL_NOT_FOUND", "no model " + name);
      }
      model = ready;
      return grpc::Status::OK;
    };
    handlers_.methods.resize(1);
    handlers_.methods[0].set_name("raw-attention");
    handlers_.methods[0].add_architectures("mamba");
  }

  Outcome Run(const std::vector<std::string>& arguments,
              ColorMode color = ColorMode::kNone) {
    const FakeServer server(handlers_);
    auto parsed =
        ParseCommandLine(arguments, [](const char*) { return nullptr; });
    if (const auto* exit = std::get_if<ParseExit>(&parsed)) {
      return {exit->code, "", exit->text};
    }
    CommandLine line = std::get<CommandLine>(parsed);
    line.client.target = server.address();
    const auto client = Client::Create(line.client);
    std::ostringstream out, err;
    Terminal terminal{
        .out = out, .err = err, .color = color, .columns = columns_};
    const int code = RunCommand(**client, line, terminal);
    return {code, out.str(), err.str()};
  }

  Outcome Explain(std::vector<std::string> flags,
                  ColorMode color = ColorMode::kNone) {
    flags.insert(flags.begin(), {"explain", "--model", "sentiment-mamba"});
    return Run(flags, color);
  }

  static std::string Folder() {
    const std::string folder = ::testing::TempDir() + "/commands_test";
    std::filesystem::remove_all(folder);
    return folder;
  }

  FakeHandlers handlers_;
  v1::ExplainResponse response_ = MakeResponse();
  std::atomic<int> explained_ = 0;
  int columns_ = 0;
};

TEST_F(CommandsTest, ModelsAreListedWithTheirState) {
  const Outcome outcome = Run({"models"});
  EXPECT_EQ(outcome.code, kExitOk);
  EXPECT_THAT(outcome.out, HasSubstr("sentiment-mamba  ready   mamba"));
  EXPECT_THAT(outcome.out, HasSubstr("failed"));
  // The reason of one takes no room from the others' columns.
  EXPECT_THAT(outcome.out, HasSubstr("ARCHITECTURE  INPUT"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("\x1b")));
  EXPECT_EQ(json::parse(Run({"models", "--json"}).out).size(), 2u);
}

TEST_F(CommandsTest, VersionsAreShownWhereThereAreSome) {
  EXPECT_THAT(Run({"models"}).out, Not(HasSubstr("VERSION")));
  v1::Model& ready = handlers_.models[1];
  ready.set_version(2);
  ready.add_available_versions(3);
  ready.add_available_versions(2);
  handlers_.model = [ready](const std::string&, v1::Model& model) {
    model = ready;
    return grpc::Status::OK;
  };
  const std::string list = Run({"models"}).out;
  EXPECT_THAT(list, HasSubstr("NAME             VERSION  STATE"));
  EXPECT_THAT(list, HasSubstr("sentiment-mamba  2        ready"));
  EXPECT_THAT(list, HasSubstr("broken           -        failed"));
  const std::string one = Run({"model", "sentiment-mamba"}).out;
  EXPECT_THAT(one, HasSubstr("versions in the repository  3, 2\n"));
}

TEST_F(CommandsTest, ModelLoadAndUnloadPrintTheModel) {
  for (const char* command : {"model", "load", "unload"}) {
    const Outcome outcome = Run({command, "sentiment-mamba"});
    EXPECT_EQ(outcome.code, kExitOk);
    EXPECT_THAT(outcome.out, HasSubstr("architecture"));
  }
  const Outcome unknown = Run({"model", "nobody"});
  EXPECT_EQ(unknown.code, kExitFailed);
  EXPECT_THAT(unknown.err, HasSubstr("NOT_FOUND (MODEL_NOT_FOUND)"));
}

TEST_F(CommandsTest, MethodsAndHealth) {
  EXPECT_THAT(Run({"methods"}).out, HasSubstr("raw-attention"));
  EXPECT_EQ(Run({"health"}).out, "SERVING\n");
  EXPECT_EQ(Run({"health"}).code, kExitOk);
  EXPECT_EQ(Run({"health", "nobody"}).code, kExitFailed);
}

TEST_F(CommandsTest, ExplainPrintsAPlainTableIntoAPipe) {
  const Outcome outcome = Explain({"--text", "A good film"});
  EXPECT_EQ(outcome.code, kExitOk) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  for (const char* part : {" good", "0.7", "prediction", "75.000 %", "2.5e-07",
                           "compute 12.0 ms", "logit of token great (42)"}) {
    EXPECT_THAT(outcome.out, HasSubstr(part));
  }
  EXPECT_THAT(outcome.out, Not(HasSubstr("\x1b")));
}

TEST_F(CommandsTest, ExplainColoursTokensOnATerminal) {
  const Outcome outcome =
      Explain({"--text", "A good film"}, ColorMode::kTrueColor);
  EXPECT_THAT(outcome.out, HasSubstr("m good\x1b[0m"));
}

TEST_F(CommandsTest, RefusalsShowFieldsAndExitWithOne) {
  const Outcome outcome = Explain({"--text", ""});
  EXPECT_EQ(outcome.code, kExitFailed);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, HasSubstr("INVALID_ARGUMENT"));
  EXPECT_THAT(outcome.err, HasSubstr("input.text (--text): is empty"));
}

TEST_F(CommandsTest, WhatCanNotBeParsedExitsWithTwo) {
  EXPECT_EQ(Explain({"--text", "a", "--layers", "x"}).code, kExitUsage);
  EXPECT_EQ(Explain({"--text", "a", "--option", "x=1"}).code, kExitUsage);
  EXPECT_EQ(Explain({"--text-file", "/nonexistent"}).code, kExitUsage);
  EXPECT_EQ(Explain({"--jsonl", "/nonexistent"}).code, kExitUsage);
}

TEST_F(CommandsTest, JsonIsTheWholeReply) {
  const Outcome outcome = Explain({"--text", "a", "--json"});
  const json reply = json::parse(outcome.out);
  EXPECT_EQ(reply["header"]["model"], "sentiment-mamba");
  EXPECT_EQ(reply["tensors"]["attribution"].size(), 3u);
}

TEST_F(CommandsTest, StreamPrintsPartsAsTheyCome) {
  const Outcome text = Explain({"--text", "a", "--stream"});
  EXPECT_EQ(text.code, kExitOk);
  EXPECT_THAT(text.out, HasSubstr("layers.0.attention"));
  const Outcome outcome = Explain({"--text", "a", "--stream", "--json"});
  std::istringstream lines(outcome.out);
  std::vector<std::string> keys;
  for (std::string line; std::getline(lines, line);) {
    keys.push_back(json::parse(line).begin().key());
  }
  EXPECT_THAT(keys, ::testing::ElementsAre("header", "progress", "tensor",
                                           "tensor", "tensor", "summary"));
}

TEST_F(CommandsTest, ValidateOnlyPrintsTheCost) {
  response_ = v1::ExplainResponse();
  response_.mutable_summary()->mutable_cost()->set_peak_bytes(12345);
  const Outcome outcome = Explain({"--text", "a", "--validate-only"});
  EXPECT_EQ(outcome.code, kExitOk);
  EXPECT_THAT(outcome.out, HasSubstr("12345"));
}

TEST_F(CommandsTest, OutWritesEveryFile) {
  const std::string folder = Folder();
  *response_.mutable_tensors(1) = testing::MakeTensor(
      "layers.0.attention", {3, 3}, {1, 0, 0, 0.5f, 0.5f, 0, 0.1f, 0.7f, 0.2f});
  const Outcome outcome = Explain(
      {"--text", "a", "--attention", "matrix", "--out", folder + "/a/b"});
  EXPECT_EQ(outcome.code, kExitOk) << outcome.err;
  for (const char* name :
       {"explanation.safetensors", "explanation.json", "attribution.png",
        "attribution.svg", "report.html", "layer-0.png", "layer-0.svg"}) {
    EXPECT_TRUE(std::filesystem::exists(folder + "/a/b/" + name)) << name;
  }
}

TEST_F(CommandsTest, FilesThatCanNotBeWrittenFail) {
  for (const char* flag : {"--png", "--svg", "--html", "--save"}) {
    const Outcome outcome =
        Explain({"--text", "a", flag, "/nonexistent/folder/file"});
    EXPECT_EQ(outcome.code, kExitFailed);
    EXPECT_THAT(outcome.err, HasSubstr("/nonexistent/folder/file"));
  }
}

TEST_F(CommandsTest, PicturesShowPatches) {
  const std::string folder = Folder();
  std::filesystem::create_directories(folder);
  response_.mutable_header()->clear_tokens();
  *response_.mutable_tensors(0) =
      testing::MakeTensor("attribution", {2, 2}, {1, 2, 3, 4});
  const Outcome outcome = Explain({"--tokens", "1", "--png", folder + "/p.png",
                                   "--html", folder + "/r.html"});
  EXPECT_EQ(outcome.code, kExitOk) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("1\t2\n3\t4\n"));
}

TEST_F(CommandsTest, LinesAreExplainedOneByOne) {
  const std::string path = ::testing::TempDir() + "/lines.jsonl";
  std::ofstream(path) << "{\"text\": \"a\"}\n\n{\"tokens\": [1, 2]}\n"
                      << "{\"text\": \"\"}\n";
  const Outcome outcome = Explain({"--jsonl", path});
  EXPECT_EQ(outcome.code, kExitFailed);
  std::istringstream lines(outcome.out);
  std::vector<json> results;
  for (std::string line; std::getline(lines, line);) {
    results.push_back(json::parse(line));
  }
  ASSERT_EQ(results.size(), 3u);
  EXPECT_TRUE(results[0].contains("explanation"));
  EXPECT_EQ(results[1]["line"], 3);
  EXPECT_EQ(results[2]["error"]["violations"][0]["field"], "input.text");
}

TEST_F(CommandsTest, ManyLinesAreInFlight) {
  std::atomic<int> inside = 0;
  handlers_.explain = [&](grpc::ServerContext& context, const auto&,
                          v1::ExplainResponse& response) {
    // None ends before three are here.
    ++inside;
    while (inside < 3 && !context.IsCancelled()) std::this_thread::yield();
    response = response_;
    return grpc::Status::OK;
  };
  const std::string path = ::testing::TempDir() + "/flight.jsonl";
  std::ofstream(path) << "{\"text\": \"a\"}\n{\"text\": \"b\"}\n"
                      << "{\"text\": \"c\"}\n";
  EXPECT_EQ(Explain({"--jsonl", path, "--in-flight", "3"}).code, kExitOk);
}

TEST_F(CommandsTest, WhatIsInTheFolderIsNotComputedAgain) {
  const std::string folder = Folder();
  const std::string path = ::testing::TempDir() + "/resume.jsonl";
  std::ofstream(path) << "{\"text\": \"a\"}\n{\"text\": \"\"}\n"
                      << "{\"text\": \"c\"}\n";
  const Outcome first = Explain({"--jsonl", path, "--out", folder});
  EXPECT_EQ(first.code, kExitFailed);
  EXPECT_EQ(first.out, "");
  EXPECT_THAT(first.err,
              HasSubstr("2 explained, 0 were there already, 1 fail"));
  EXPECT_FALSE(std::filesystem::exists(folder + "/000002.json"));
  std::ifstream file(folder + "/000003.json");
  const json result = json::parse(file);
  EXPECT_EQ(result["line"], 3);
  EXPECT_EQ(result["request"]["input"]["text"], "c");
  EXPECT_TRUE(result["explanation"].contains("summary"));

  // Only the line that failed is tried again.
  explained_ = 0;
  const Outcome second = Explain({"--jsonl", path, "--out", folder});
  EXPECT_EQ(explained_, 1);
  EXPECT_THAT(second.err, HasSubstr("0 explained, 2 were there already"));
  // Another request is not the one that is there.
  const Outcome third =
      Explain({"--jsonl", path, "--out", folder, "--method", "alti"});
  EXPECT_THAT(third.err, HasSubstr("2 explained, 0 were there already"));
  // What a killed run has left under another name does not count.
  std::filesystem::rename(folder + "/000003.json",
                          folder + "/000003.json.1.tmp");
  explained_ = 0;
  Explain({"--jsonl", path, "--out", folder, "--method", "alti"});
  EXPECT_EQ(explained_, 2);
}

TEST_F(CommandsTest, LayersAreShownByTokens) {
  const Outcome plain = Explain({"--text", "a", "--layer-view"});
  EXPECT_THAT(plain.out, HasSubstr("layer\t0\t1\t2\n0\t"));
  const Outcome colored =
      Explain({"--text", "a", "--layer-view"}, ColorMode::k256);
  EXPECT_THAT(colored.out, HasSubstr("layer   0 \x1b["));
  response_.mutable_tensors()->DeleteSubrange(1, 2);
  response_.mutable_summary()->set_num_tensors(1);
  EXPECT_THAT(Explain({"--text", "a", "--layer-view"}).out,
              HasSubstr("no attention"));
}

TEST_F(CommandsTest, ComparePutsMethodsSideBySide) {
  const std::string folder = Folder();
  std::filesystem::create_directories(folder);
  const std::vector<std::string> compare = {
      "compare",     "--model",  "sentiment-mamba",   "--text",
      "A good film", "--method", "alti,raw-attention"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), compare.begin(), compare.end());
    return Run(more);
  };
  const Outcome outcome =
      with({"--png", folder + "/p.png", "--html", folder + "/r.html"});
  EXPECT_EQ(outcome.code, kExitOk) << outcome.err;
  EXPECT_EQ(explained_, 2);
  EXPECT_THAT(outcome.out, HasSubstr("A and B: rank correlation 1.00"));
  EXPECT_TRUE(std::filesystem::exists(folder + "/p.png"));
  EXPECT_TRUE(std::filesystem::exists(folder + "/r.html"));
  const json reply = json::parse(with({"--json"}).out);
  EXPECT_EQ(reply["explanations"].size(), 2u);
  EXPECT_EQ(reply["agreement"][0]["rankCorrelation"], 1);
}

TEST_F(CommandsTest, CompareNeedsSeveralExplanationsAndAllOfThem) {
  const Outcome one =
      Run({"compare", "--model", "sentiment-mamba", "--text", "a"});
  EXPECT_EQ(one.code, kExitUsage);
  EXPECT_THAT(one.err, HasSubstr("--method A,B"));
  const Outcome refused = Run({"compare", "--model", "sentiment-mamba",
                               "--text", "", "--method", "a,b", "--json"});
  EXPECT_EQ(refused.code, kExitFailed);
  EXPECT_EQ(json::parse(refused.err)["error"]["code"], "INVALID_ARGUMENT");
}

TEST_F(CommandsTest, StripsFitTheTerminal) {
  const Outcome wide = Explain({"--text", "a"}, ColorMode::k256);
  const auto lines = [](const std::string& text) {
    return std::count(text.begin(), text.end(), '\n');
  };
  columns_ = 8;  // "A", " good" and " film" do not fit one line
  const Outcome narrow = Explain({"--text", "a"}, ColorMode::k256);
  EXPECT_GT(lines(narrow.out), lines(wide.out));
}

TEST_F(CommandsTest, LinesThatAreNotRequestsExitWithTwo) {
  const std::string path = ::testing::TempDir() + "/bad.jsonl";
  for (const char* line :
       {"nonsense", "[1]", "{}", "{\"text\": 5}", "{\"tokens\": [1.5]}",
        "{\"tokens\": [18446744073709551615]}", "{\"text\": \"\xff\"}",
        "{\"text\": \"a\", \"tokens\": [1]}"}) {
    std::ofstream(path) << line << "\n{\"text\": \"a\"}\n";
    const Outcome outcome = Explain({"--jsonl", path});
    EXPECT_EQ(outcome.code, kExitUsage) << line;
    EXPECT_THAT(outcome.out, HasSubstr("\"explanation\"")) << line;
  }
}

TEST_F(CommandsTest, DamagedRepliesFail) {
  response_.mutable_tensors(0)->mutable_header()->set_crc32(1);
  const Outcome outcome = Explain({"--text", "a"});
  EXPECT_EQ(outcome.code, kExitFailed);
  EXPECT_THAT(outcome.err, HasSubstr("DATA_LOSS (TENSOR_DAMAGED)"));
}

TEST_F(CommandsTest, RepliesThatClaimNonsenseArePrintedSafely) {
  response_.mutable_header()->set_position(-7);
  response_.mutable_header()->mutable_tokens(1)->set_piece_bytes(
      "\x1b]0;x\x07");
  response_.mutable_header()->mutable_tokens()->RemoveLast();
  *response_.mutable_tensors(1) =
      testing::MakeTensor("layers.99999999999999999999.attention", {1}, {1});
  const Outcome outcome = Explain(
      {"--text", "a", "--html", ::testing::TempDir() + "/nonsense.html"},
      ColorMode::k256);
  EXPECT_EQ(outcome.code, kExitOk) << outcome.err;
  EXPECT_THAT(outcome.out, Not(HasSubstr("\x07")));
}

}  // namespace
}  // namespace limpid::cli
