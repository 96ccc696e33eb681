// SPDX-License-Identifier: Apache-2.0
#include "client/cli/command_line.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/completion.h"
#include "client/cli/flag_values.h"

namespace limpid::cli {
namespace {

CLI::App& AddCommand(CLI::App& app, const std::string& name,
                     const std::string& help, Command command,
                     CommandLine& line) {
  CLI::App& sub = *app.add_subcommand(name, help);
  sub.fallthrough();
  sub.footer(
      "Options of limpid itself, such as --server and --deadline, may "
      "stand here too.");
  sub.callback([command, &line] { line.command = command; });
  return sub;
}

void AddCommands(CLI::App& app, CommandLine& line) {
  const auto simple = [&](const char* name, const char* help, Command command,
                          bool takes_name, bool name_required) {
    CLI::App& sub = AddCommand(app, name, help, command, line);
    sub.add_flag("--json", line.json, "Print JSON");
    if (!takes_name) return;
    sub.add_option("name", line.name, "Model")
        ->type_name("NAME")
        ->required(name_required);
  };
  simple("models", "List the models", Command::kModels, false, false);
  simple("model", "Describe a model", Command::kModel, true, true);
  simple("load", "Make a model resident", Command::kLoad, true, true);
  simple("unload", "Free a model", Command::kUnload, true, true);
  simple("health", "Ask whether the server or a model serves", Command::kHealth,
         true, false);
  simple("methods", "List the attribution methods", Command::kMethods, false,
         false);
  CLI::App& explain =
      AddCommand(app, "explain", "Explain an input", Command::kExplain, line);
  AddExplainFlags(explain, line.explain, line.json);
  AddCompareFlags(AddCommand(app, "compare",
                             "Put models or methods side by side on one input",
                             Command::kCompare, line),
                  line.explain, line.json);
  AddEvaluateFlags(
      AddCommand(app, "evaluate",
                 "Judge the attribution methods by a protocol of the field",
                 Command::kEvaluate, line),
      line.evaluate);
  AddBenchFlags(
      AddCommand(app, "bench", "Load the server and check every reply",
                 Command::kBench, line),
      line.bench);
  CLI::App& completion = AddCommand(
      app, "completion", "Print a script that completes commands and flags",
      Command::kCompletion, line);
  completion
      .add_option("shell", line.shell,
                  "Shell that the script is for:\n"
                  "  bash: limpid completion bash "
                  ">/etc/bash_completion.d/limpid\n"
                  "  zsh:  limpid completion zsh "
                  ">/usr/share/zsh/vendor-completions/_limpid\n"
                  "  fish: limpid completion fish "
                  ">~/.config/fish/completions/limpid.fish")
      ->type_name("bash|zsh|fish")
      ->required();
}

// What CLI11 can't know: returns the mistake, or nothing.
std::string Mistake(const CommandLine& line) {
  if (line.command == Command::kExplain || line.command == Command::kCompare) {
    const std::string mistake = ExplainMistake(line.explain);
    if (!mistake.empty()) return mistake;
  }
  const EvaluateFlags& evaluate = line.evaluate;
  if (line.command == Command::kEvaluate && evaluate.protocol != "grounding" &&
      evaluate.data.empty()) {
    return absl::StrCat("--data is required for ", evaluate.protocol);
  }
  if (evaluate.protocol == "lexicon" && evaluate.words.empty()) {
    return "--words is required for lexicon";
  }
  if (line.command == Command::kBench) {
    const std::string mistake = BenchMistake(line.bench);
    if (!mistake.empty()) return mistake;
  }
  if (line.client.target.find(':') == std::string::npos) {
    return absl::StrCat("--server: \"", line.client.target,
                        "\" is not HOST:PORT");
  }
  return "";
}

// Whether the argument is a flag that takes its value from the next one.
bool TakesNext(const CLI::App& app, const std::string& argument) {
  if (argument.size() < 3 || argument.compare(0, 2, "--") != 0) return false;
  const CLI::Option* option = app.get_option_no_throw(argument);
  for (const CLI::App* sub : app.get_subcommands(nullptr)) {
    if (option == nullptr) option = sub->get_option_no_throw(argument);
  }
  return option != nullptr && option->get_items_expected_max() > 0;
}

// CLI11 reads "--text=" as a flag whose value comes next; here it has an empty
// value. Returns the arguments in the reverse order that CLI11 takes.
std::vector<std::string> Normalize(const CLI::App& app,
                                   const std::vector<std::string>& arguments) {
  std::vector<std::string> out;
  bool is_value = false;
  for (const std::string& argument : arguments) {
    const std::string name = argument.substr(0, argument.find('='));
    const bool empty_value =
        !is_value && name.size() + 1 == argument.size() && TakesNext(app, name);
    out.push_back(empty_value ? name : argument);
    if (empty_value) out.emplace_back();
    is_value = !is_value && TakesNext(app, argument);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

ParseExit Usage(const std::string& message, const std::string& command = "") {
  return {kExitUsage,
          absl::StrCat("limpid: ", message, "\nlimpid: see limpid ", command,
                       command.empty() ? "" : " ", "--help\n")};
}

}  // namespace

std::variant<CommandLine, ParseExit> ParseCommandLine(
    const std::vector<std::string>& arguments, const GetEnv& get_env) {
  CommandLine line;
  if (const char* server = get_env("LIMPID_SERVER"); server && *server) {
    line.client.target = server;
  }
  std::optional<std::string> deadline;
  CLI::App app("Explains gated-linear recurrent networks.", "limpid");
  app.add_option("--server", line.client.target,
                 "Server (default: LIMPID_SERVER, else 127.0.0.1:50051)")
      ->type_name("HOST:PORT");
  app.add_option("--ca", line.client.ca_file,
                 "Use TLS and verify the server against these certificates")
      ->type_name("FILE");
  app.add_option("--cert", line.client.certificate_file,
                 "Show this certificate to the server; with --key and --ca")
      ->type_name("FILE");
  app.add_option("--key", line.client.key_file, "Private key of --cert")
      ->type_name("FILE");
  app.add_option("--token-file", line.client.token_file,
                 "Send the first line of this file as bearer token")
      ->type_name("FILE");
  AddValue(app, "--deadline", "DURATION", deadline,
           "Longest time for a call (default 30s)");
  app.add_option("--attempts", line.client.retry.max_attempts,
                 "Tries per call in all (default 3): a server that is not "
                 "there or whose queue is full is asked again")
      ->type_name("N")
      ->check(CLI::Range(1, 100));
  app.footer(
      "Examples:\n"
      "  limpid models\n"
      "  limpid explain --model sentiment-mamba --text 'Not bad at all.'\n"
      "  limpid explain --model shapes-vim --image picture.png --png map.png\n"
      "  limpid compare --model sentiment-mamba --text 'Not bad.' \\\n"
      "      --method raw-attention,integrated-gradients --html report.html\n"
      "  limpid explain --model recall-mamba --jsonl inputs.jsonl --out "
      "results\n"
      "\nlimpid COMMAND --help describes a command. Exit status: 0 fine, 1 the "
      "server\nrefused or failed, 2 wrong usage, 130 interrupted.");
  app.set_version_flag("--version", "limpid " LIMPID_VERSION);
  app.require_subcommand(1);
  AddCommands(app, line);
  try {
    app.parse(Normalize(app, arguments));
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    return ParseExit{
        kExitOk, chosen.empty() ? app.help() : chosen.front()->help("limpid")};
  } catch (const CLI::CallForVersion& version) {
    return ParseExit{kExitOk, absl::StrCat(version.what(), "\n")};
  } catch (const CLI::ParseError& error) {
    if (const auto chosen = app.get_subcommands(); !chosen.empty()) {
      return Usage(error.what(), chosen.front()->get_name());
    }
    std::vector<std::string> names;
    for (const CLI::App* sub : app.get_subcommands(nullptr)) {
      names.push_back(sub->get_name());
    }
    return Usage(absl::StrCat(error.what(), "; the commands are ",
                              absl::StrJoin(names, ", ")));
  }
  if (line.command == Command::kCompletion) {
    const std::string script = CompletionScript(app, line.shell);
    if (!script.empty()) return ParseExit{kExitOk, script};
    return Usage(absl::StrCat("completion: \"", line.shell,
                              "\" is none of bash, zsh, fish"));
  }
  if (deadline) {
    const absl::StatusOr<absl::Duration> parsed = ParseDeadline(*deadline);
    if (!parsed.ok()) {
      return Usage(absl::StrCat("--deadline: ", parsed.status().message()));
    }
    line.client.deadline = *parsed;
  }
  // A refusal is a figure here, not a reason to try again.
  if (line.command == Command::kBench) line.client.retry.max_attempts = 1;
  if (const std::string mistake = Mistake(line); !mistake.empty()) {
    return Usage(mistake);
  }
  return line;
}

}  // namespace limpid::cli
