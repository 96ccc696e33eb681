// SPDX-License-Identifier: Apache-2.0
//
// What bash offers after the script was read. tests/e2e tries zsh and fish.
#include <algorithm>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "client/cli/command_line.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/process.h"

namespace limpid::cli {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

std::string Script(const std::string& shell) {
  const auto parsed =
      ParseCommandLine({"completion", shell},
                       [](const char*) -> const char* { return nullptr; });
  const auto* exit = std::get_if<ParseExit>(&parsed);
  EXPECT_TRUE(exit != nullptr && exit->code == kExitOk) << shell;
  return exit == nullptr ? "" : exit->text;
}

// What bash offers for the last of the words. `limpid` is a function here that
// answers as the program does.
std::vector<std::string> Offered(const std::vector<std::string>& words) {
  std::string command = Script("bash") + R"(
command() {
  case "$*" in
    *' models') printf 'NAME  STATE\nsentiment-mamba  ready\nrecall  ready\n' ;;
    *' methods') printf 'ARCHITECTURE  alti\nmamba  yes\n\nalti\n  text\n' ;;
  esac
}
COMP_WORDS=(limpid)";
  for (const std::string& word : words) command += " '" + word + "'";
  command +=
      ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
      "_limpid 2>/dev/null\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n";
  const testing::ProcessResult result =
      testing::RunProcess({"bash", "-c", command});
  EXPECT_EQ(result.exit_status, 0) << result.errors;
  std::vector<std::string> lines;
  std::istringstream in(result.output);
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

TEST(CompletionTest, CommandsAreOffered) {
  EXPECT_THAT(Offered({"mod"}), UnorderedElementsAre("models", "model"));
  EXPECT_THAT(Offered({"comp"}), UnorderedElementsAre("compare", "completion"));
  EXPECT_THAT(Offered({"--serv"}), ElementsAre("--server"));
}

TEST(CompletionTest, FlagsOfTheCommandAreOfferedOnce) {
  std::vector<std::string> flags = Offered({"explain", "--"});
  EXPECT_THAT(flags, Contains("--text"));
  EXPECT_THAT(flags, Contains("--deadline"));
  EXPECT_THAT(flags, Not(Contains("--clients")));
  EXPECT_THAT(flags, Each(StartsWith("--")));
  std::sort(flags.begin(), flags.end());
  flags.erase(std::remove(flags.begin(), flags.end(), "--help"), flags.end());
  EXPECT_EQ(std::adjacent_find(flags.begin(), flags.end()), flags.end());
  EXPECT_THAT(Offered({"bench", "--cl"}), ElementsAre("--clients"));
}

TEST(CompletionTest, ValuesAreOffered) {
  EXPECT_THAT(Offered({"explain", "--attention", ""}),
              ElementsAre("none", "row", "matrix"));
  EXPECT_THAT(Offered({"explain", "--position", ""}),
              ElementsAre("last", "cls"));
  EXPECT_THAT(Offered({"completion", ""}), Contains("fish"));
  EXPECT_THAT(Offered({"explain", "--text", ""}), IsEmpty());
}

TEST(CompletionTest, ModelsAndMethodsAreAskedOfTheServer) {
  EXPECT_THAT(Offered({"explain", "--model", "s"}),
              ElementsAre("sentiment-mamba"));
  EXPECT_THAT(Offered({"model", "r"}), ElementsAre("recall"));
  EXPECT_THAT(Offered({"explain", "--method", ""}), ElementsAre("alti"));
}

TEST(CompletionTest, OtherShellsAreRefused) {
  const auto parsed =
      ParseCommandLine({"completion", "tcsh"},
                       [](const char*) -> const char* { return nullptr; });
  ASSERT_TRUE(std::holds_alternative<ParseExit>(parsed));
  EXPECT_EQ(std::get<ParseExit>(parsed).code, kExitUsage);
}

}  // namespace
}  // namespace limpid::cli
