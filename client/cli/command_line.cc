// SPDX-License-Identifier: Apache-2.0
#include "client/cli/command_line.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/flag_values.h"

namespace limpid::cli {
namespace {

// A flag with one value that is kept byte for byte: empty values, values that
// look like flags and values in brackets are as good as any other.
CLI::Option* AddValue(CLI::App& app, const std::string& name,
                      const std::string& type,
                      std::optional<std::string>& value,
                      const std::string& help) {
  return app
      .add_option(
          name,
          [&value](const CLI::results_t& results) {
            value = results.front();
            return true;
          },
          help)
      ->type_name(type);
}

std::string OneOf(const google::protobuf::EnumDescriptor* type) {
  return absl::StrCat(": ", EnumNames(type));
}

void AddInputs(CLI::App& app, ExplainFlags& flags) {
  CLI::App& group = *app.add_option_group("Input");
  AddValue(group, "--text", "TEXT", flags.text, "Text, taken verbatim");
  AddValue(group, "--text-file", "FILE", flags.text_file,
           "Text from a file, byte for byte; - for standard input");
  AddValue(group, "--tokens", "IDS", flags.tokens, "Token ids: 1,2,3");
  AddValue(group, "--image", "FILE", flags.image, "PNG or JPEG file");
  AddValue(group, "--pixels", "FILE", flags.pixels,
           "safetensors file with the tensor `pixels` [3, H, W]");
  AddValue(group, "--jsonl", "FILE", flags.jsonl,
           "One {\"text\": ...} or {\"tokens\": [...]} per line; one JSON "
           "result per line is printed. - for standard input");
  group.require_option(1);
}

void AddWhat(CLI::App& app, ExplainFlags& flags) {
  CLI::App& group = *app.add_option_group("What to explain");
  AddValue(group, "--method", "NAME", flags.method,
           "Attribution method (default raw-attention); see `limpid methods`");
  AddValue(group, "--target", "TARGET", flags.target,
           "predicted (default), next (the token that follows), token:ID, "
           "class:ID or contrast:ID,ID");
  AddValue(group, "--position", "N|last|cls", flags.position,
           "Explained position (default last, for pictures cls), or several: "
           "3-6,9");
  AddValue(group, "--aggregate", "UNITS", flags.aggregate,
           "Sum attributions over word, span:0-3,7 or region:ROWSxCOLUMNS,... "
           "such as region:0-1x2-5");
  AddValue(group, "--attention", "KIND", flags.attention,
           "Attention to return" + OneOf(v1::AttentionKind_descriptor()) +
               " (default row)");
  AddValue(group, "--channels", "REDUCTION", flags.channels,
           "Reduction over channels" +
               OneOf(v1::ChannelReduction_descriptor()) +
               " (default mean-abs)");
  AddValue(group, "--form", "FORM", flags.form,
           "Factors in the matrices" + OneOf(v1::AttentionForm_descriptor()) +
               " (default full)");
  AddValue(group, "--layers", "LAYERS", flags.layers,
           "Layers to return: 0-3,7 (default all)");
  AddValue(group, "--channel-list", "CHANNELS", flags.channel_list,
           "With --channels all: the channels to return, 0-3,7 (default all)");
  AddValue(group, "--downsample", "N", flags.downsample,
           "Average returned attention over blocks of N entries per side");
  AddValue(group, "--attention-top-k", "N", flags.attention_top_k,
           "Keep the N largest entries of every returned row");
  AddValue(group, "--dtype", "float32|float16|uint8", flags.dtype,
           "Type in which attention is sent (default float32)");
  group.add_flag("--head-form", flags.head_form,
                 "One matrix per head, of the form state");
  AddValue(group, "--include-skip", "true|false", flags.include_skip,
           "Whether the recurrence's skip is part of the matrix");
  group.add_flag("--faithfulness", flags.faithfulness,
                 "Measure the attribution by deleting and inserting tokens");
  AddValue(group, "--top-k", "N", flags.top_k,
           "Predictions to list (default 5)");
  group
      .add_option("--option", flags.options,
                  absl::StrCat("Option of the method, may be repeated: ",
                               MethodOptionNames()))
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  AddValue(
      group, "--precision", "NAME", flags.precision,
      "Arithmetic" + OneOf(v1::Precision_descriptor()) + " (default float32)");
}

void AddOutputs(CLI::App& app, ExplainFlags& flags, bool& json) {
  CLI::App& group = *app.add_option_group("Output");
  group.add_flag("--logits", flags.logits, "Return the logits");
  group.add_flag("--debug-tensors", flags.debug_tensors,
                 "Return values, outputs, biases and gradients");
  group.add_flag("--validate-only", flags.validate_only,
                 "Tell the cost and run nothing");
  group.add_flag("--stream", flags.stream, "Print parts as they come");
  AddValue(group, "--out", "DIR", flags.out,
           "Write safetensors, JSON, PNG and HTML files to a folder");
  AddValue(group, "--save", "FILE", flags.save, "Write a safetensors file");
  group.add_flag("--json", json, "Print the whole reply as JSON");
  AddValue(group, "--png", "FILE", flags.png, "Write a picture");
  AddValue(group, "--html", "FILE", flags.html, "Write a report");
}

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
  explain.add_option("--model", line.explain.model, "Model")
      ->type_name("NAME")
      ->required();
  AddInputs(explain, line.explain);
  AddWhat(explain, line.explain);
  AddOutputs(explain, line.explain, line.json);
  AddEvaluateFlags(
      AddCommand(app, "evaluate",
                 "Judge the attribution methods by a protocol of the field",
                 Command::kEvaluate, line),
      line.evaluate);
  AddBenchFlags(
      AddCommand(app, "bench", "Load the server and check every reply",
                 Command::kBench, line),
      line.bench);
}

// What CLI11 can't know: returns the mistake, or nothing.
std::string Mistake(const CommandLine& line) {
  const ExplainFlags& flags = line.explain;
  if (flags.jsonl &&
      (flags.out || flags.save || flags.png || flags.html || flags.stream)) {
    return "--jsonl prints JSON only: without --out, --save, --png, --html "
           "and --stream";
  }
  if (flags.validate_only &&
      (flags.out || flags.save || flags.png || flags.html)) {
    return "--validate-only runs nothing: without --out, --save, --png and "
           "--html";
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

ParseExit Usage(const std::string& message) {
  return {kExitUsage,
          absl::StrCat("limpid: ", message, "\nlimpid: see limpid --help\n")};
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
    if (!app.get_subcommands().empty()) return Usage(error.what());
    std::vector<std::string> names;
    for (const CLI::App* sub : app.get_subcommands(nullptr)) {
      names.push_back(sub->get_name());
    }
    return Usage(absl::StrCat(error.what(), "; the commands are ",
                              absl::StrJoin(names, ", ")));
  }
  if (deadline) {
    const absl::StatusOr<absl::Duration> parsed = ParseDeadline(*deadline);
    if (!parsed.ok()) {
      return Usage(absl::StrCat("--deadline: ", parsed.status().message()));
    }
    line.client.deadline = *parsed;
  }
  // A refusal is a figure here, not a reason to try again.
  if (line.command == Command::kBench) line.client.max_attempts = 1;
  if (const std::string mistake = Mistake(line); !mistake.empty()) {
    return Usage(mistake);
  }
  return line;
}

}  // namespace limpid::cli
