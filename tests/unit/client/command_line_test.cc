// SPDX-License-Identifier: Apache-2.0
//
// Command lines as people write them.
#include "client/cli/command_line.h"

#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace limpid::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Arguments = std::vector<std::string>;

std::variant<CommandLine, ParseExit> Parse(
    const Arguments& arguments,
    const std::map<std::string, std::string>& environment = {}) {
  return ParseCommandLine(arguments, [&](const char* name) {
    const auto it = environment.find(name);
    return it == environment.end() ? nullptr : it->second.c_str();
  });
}

CommandLine Accepted(
    const Arguments& arguments,
    const std::map<std::string, std::string>& environment = {}) {
  const auto parsed = Parse(arguments, environment);
  if (const auto* exit = std::get_if<ParseExit>(&parsed)) {
    ADD_FAILURE() << exit->text;
    return {};
  }
  return std::get<CommandLine>(parsed);
}

ParseExit Exits(const Arguments& arguments) {
  const auto parsed = Parse(arguments);
  if (std::holds_alternative<CommandLine>(parsed)) {
    ADD_FAILURE() << "was accepted";
    return {};
  }
  return std::get<ParseExit>(parsed);
}

std::string TextOf(const Arguments& flags) {
  Arguments arguments = {"explain", "--model", "m"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  return Accepted(arguments).explain.text.value_or("(none)");
}

TEST(CommandLineTest, Commands) {
  EXPECT_EQ(Accepted({"models"}).command, Command::kModels);
  EXPECT_EQ(Accepted({"methods", "--json"}).json, true);
  EXPECT_EQ(Accepted({"model", "x"}).name, "x");
  EXPECT_EQ(Accepted({"load", "x"}).command, Command::kLoad);
  EXPECT_EQ(Accepted({"unload", "x"}).command, Command::kUnload);
  EXPECT_EQ(Accepted({"health"}).name, "");
  EXPECT_EQ(Accepted({"health", "x"}).name, "x");
}

TEST(CommandLineTest, ServerByFlagElseEnvironmentElseDefault) {
  EXPECT_EQ(Accepted({"models"}).client.target, "127.0.0.1:50051");
  EXPECT_EQ(Accepted({"models"}, {{"LIMPID_SERVER", "h:1"}}).client.target,
            "h:1");
  EXPECT_EQ(Accepted({"--server", "g:2", "models"}, {{"LIMPID_SERVER", "h:1"}})
                .client.target,
            "g:2");
}

TEST(CommandLineTest, GlobalFlagsMayFollowTheCommand) {
  const CommandLine line = Accepted({"models", "--server", "g:2", "--deadline",
                                     "5s", "--ca", "c", "--token-file", "t"});
  EXPECT_EQ(line.client.target, "g:2");
  EXPECT_EQ(line.client.deadline, absl::Seconds(5));
  EXPECT_EQ(line.client.ca_file, "c");
  EXPECT_EQ(line.client.token_file, "t");
}

TEST(CommandLineTest, TextIsVerbatim) {
  EXPECT_EQ(TextOf({"--text", " a\n"}), " a\n");
  EXPECT_EQ(TextOf({"--text", "[a, b]"}), "[a, b]");
  EXPECT_EQ(TextOf({"--text", "--method"}), "--method");
  EXPECT_EQ(TextOf({"--text", "-5"}), "-5");
  EXPECT_EQ(TextOf({"--text", "--text="}), "--text=");
  EXPECT_EQ(TextOf({"--text", "{}"}), "{}");
  EXPECT_EQ(TextOf({"--text", "\"q\" 'r' %%"}), "\"q\" 'r' %%");
  EXPECT_EQ(TextOf({"--text=a=b"}), "a=b");
  EXPECT_EQ(TextOf({"--text", "\xff\xfe"}), "\xff\xfe");
}

TEST(CommandLineTest, EmptyTextIsAText) {
  EXPECT_EQ(TextOf({"--text", ""}), "");
  EXPECT_EQ(TextOf({"--text="}), "");
  EXPECT_EQ(TextOf({"--text=", "--method", "alti"}), "");
}

TEST(CommandLineTest, EveryFlagOfExplain) {
  const CommandLine line = Accepted({"explain",
                                     "--model",
                                     "m",
                                     "--tokens",
                                     "1,2",
                                     "--method",
                                     "alti",
                                     "--target",
                                     "class:1",
                                     "--position",
                                     "3",
                                     "--attention",
                                     "matrix",
                                     "--channels",
                                     "all",
                                     "--form",
                                     "state",
                                     "--layers",
                                     "0-3,7",
                                     "--head-form",
                                     "--include-skip",
                                     "true",
                                     "--faithfulness",
                                     "--top-k",
                                     "3",
                                     "--option",
                                     "steps=8",
                                     "--option",
                                     "norm=1",
                                     "--logits",
                                     "--debug-tensors",
                                     "--precision",
                                     "fast",
                                     "--validate-only",
                                     "--stream"});
  const ExplainFlags& flags = line.explain;
  EXPECT_EQ(line.command, Command::kExplain);
  EXPECT_EQ(flags.model, "m");
  EXPECT_EQ(flags.tokens, "1,2");
  EXPECT_EQ(flags.layers, "0-3,7");
  EXPECT_THAT(flags.options, ElementsAre("steps=8", "norm=1"));
  EXPECT_TRUE(flags.head_form && flags.faithfulness && flags.logits &&
              flags.debug_tensors && flags.validate_only && flags.stream);
}

TEST(CommandLineTest, OutputsMayBeCombined) {
  const CommandLine line =
      Accepted({"explain", "--model", "m", "--text", "a", "--out", "d",
                "--save", "f", "--json", "--png", "p", "--html", "h"});
  EXPECT_EQ(line.explain.out, "d");
  EXPECT_EQ(line.explain.save, "f");
  EXPECT_TRUE(line.json);
}

TEST(CommandLineTest, WrongUsageExitsWithTwo) {
  for (const Arguments& arguments : std::vector<Arguments>{
           {},
           {"nonsense"},
           {"models", "extra"},
           {"model"},
           {"explain", "--text", "a"},
           {"explain", "--model", "m"},
           {"explain", "--model", "m", "--text", "a", "--tokens", "1"},
           {"explain", "--model", "m", "--text", "a", "--text", "b"},
           {"explain", "--model", "m", "--text"},
           {"explain", "--model", "m", "--text", "a", "--unknown"},
           {"explain", "--model", "m", "--jsonl", "f", "--save", "g"},
           {"explain", "--model", "m", "--text", "a", "--validate-only",
            "--png", "p"},
           {"models", "--deadline", "soon"},
           {"models", "--server", "nowhere"},
           {"evaluate"},
       }) {
    const ParseExit exit = Exits(arguments);
    EXPECT_EQ(exit.code, kExitUsage);
    EXPECT_THAT(exit.text, HasSubstr("limpid: "));
  }
}

TEST(CommandLineTest, HelpAndVersionExitWithZero) {
  EXPECT_EQ(Exits({"--version"}).code, kExitOk);
  const ParseExit help = Exits({"--help"});
  EXPECT_EQ(help.code, kExitOk);
  EXPECT_THAT(help.text, HasSubstr("explain"));
  EXPECT_THAT(help.text, HasSubstr("evaluate"));
  EXPECT_THAT(Exits({"explain", "--help"}).text, HasSubstr("--include-skip"));
}

TEST(CommandLineTest, EvaluateReadsItsFlags) {
  const auto parsed = Parse({"evaluate", "grounding", "--model", "m", "--pairs",
                             "4-10", "--items", "7", "--parallel", "3"});
  ASSERT_TRUE(std::holds_alternative<CommandLine>(parsed));
  const EvaluateFlags& flags = std::get<CommandLine>(parsed).evaluate;
  EXPECT_EQ(flags.protocol, "grounding");
  EXPECT_EQ(flags.most_pairs, 10);
  EXPECT_EQ(flags.items, 7);
  EXPECT_EQ(flags.parallel, 3);
}

TEST(CommandLineTest, EvaluateRefusesWhatItCantParse) {
  for (const std::vector<std::string>& wrong :
       std::vector<std::vector<std::string>>{
           {"evaluate", "grounding"},
           {"evaluate", "magic", "--model", "m"},
           {"evaluate", "grounding", "--model", "m", "--pairs", "4-11"},
           {"evaluate", "grounding", "--model", "m", "--pairs", "5-4"},
           {"evaluate", "grounding", "--model", "m", "--parallel", "0"},
           {"evaluate", "grounding", "--model", "m", "--items", "0"},
           {"evaluate", "activation", "--model", "m"},
           {"evaluate", "lexicon", "--model", "m", "--data", "f"}}) {
    const auto parsed = Parse(wrong);
    ASSERT_TRUE(std::holds_alternative<ParseExit>(parsed)) << wrong.back();
    EXPECT_EQ(std::get<ParseExit>(parsed).code, kExitUsage);
  }
}

}  // namespace
}  // namespace limpid::cli
