// SPDX-License-Identifier: Apache-2.0
#include "client/cli/completion.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "client/cli/flag_values.h"

namespace limpid::cli {
namespace {

// What may follow a flag or stand as an argument.
struct Values {
  enum class Kind { kNone, kAny, kWords, kFile, kFolder, kModel, kMethod };
  Kind kind = Kind::kNone;
  std::vector<std::string> words;  // of kWords
};

struct Flag {
  std::string name, help;  // "--text"
  Values values;
};

struct CommandWords {
  std::string name, help;
  std::vector<Flag> flags;
  Values argument;
};

const google::protobuf::EnumDescriptor* EnumOf(const std::string& flag) {
  static const auto* const enums =
      new std::map<std::string, const google::protobuf::EnumDescriptor*>{
          {"--attention", v1::AttentionKind_descriptor()},
          {"--channels", v1::ChannelReduction_descriptor()},
          {"--form", v1::AttentionForm_descriptor()},
          {"--precision", v1::Precision_descriptor()}};
  const auto found = enums->find(flag);
  return found == enums->end() ? nullptr : found->second;
}

Values ValuesOf(const CLI::Option& option, const std::string& name) {
  using Kind = Values::Kind;
  if (option.get_items_expected_max() == 0) return {};
  if (const auto* type = EnumOf(name)) {
    return {Kind::kWords, absl::StrSplit(EnumNames(type), ", ")};
  }
  const std::string type = option.get_type_name();
  if (name == "--model" || name == "name") return {Kind::kModel, {}};
  if (name == "--method") return {Kind::kMethod, {}};
  if (type == "FILE" || type == "PATH") return {Kind::kFile, {}};
  if (type == "DIR") return {Kind::kFolder, {}};
  // "N|last|cls": what is not in capitals is written as it stands.
  Values values{Kind::kAny, {}};
  if (!absl::StrContains(type, '|')) return values;
  for (const absl::string_view word : absl::StrSplit(type, '|')) {
    if (!word.empty() && absl::ascii_islower(word[0])) {
      values.words.emplace_back(word);
    }
  }
  if (!values.words.empty()) values.kind = Kind::kWords;
  return values;
}

// The first line of a help text, without characters that end a quoted string.
std::string Brief(const std::string& help) {
  const std::string line = help.substr(0, help.find_first_of("\n"));
  return absl::StrReplaceAll(line, {{"'", ""}, {"`", ""}, {"\\", ""}});
}

void AddFlags(const CLI::App& app, CommandWords& out) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) {
      out.argument = ValuesOf(*option, option->get_name());
    }
    for (const std::string& name : option->get_lnames()) {
      const std::string flag = "--" + name;
      // Groups of flags have their own --help.
      if (std::any_of(out.flags.begin(), out.flags.end(),
                      [&](const Flag& one) { return one.name == flag; })) {
        continue;
      }
      out.flags.push_back(
          {flag, Brief(option->get_description()), ValuesOf(*option, flag)});
    }
  }
  for (const CLI::App* group : app.get_subcommands(
           [](const CLI::App* sub) { return sub->get_name().empty(); })) {
    AddFlags(*group, out);
  }
}

CommandWords WordsOf(const CLI::App& app) {
  CommandWords words{app.get_name(), Brief(app.get_description()), {}, {}};
  AddFlags(app, words);
  return words;
}

std::string NamesOf(const std::vector<CommandWords>& commands,
                    const char* separator) {
  return absl::StrJoin(commands, separator,
                       [](std::string* out, const CommandWords& command) {
                         absl::StrAppend(out, command.name);
                       });
}

std::string NamesOf(const std::vector<Flag>& flags) {
  return absl::StrJoin(flags, " ", [](std::string* out, const Flag& flag) {
    absl::StrAppend(out, flag.name);
  });
}

// How a shell offers each kind of value; %W stands for the words.
struct Offers {
  const char *words, *file, *folder, *model, *method;
};

std::string Offer(const Offers& offers, const Values& values) {
  switch (values.kind) {
    case Values::Kind::kWords:
      return absl::StrReplaceAll(offers.words,
                                 {{"%W", absl::StrJoin(values.words, " ")}});
    case Values::Kind::kFile:
      return offers.file;
    case Values::Kind::kFolder:
      return offers.folder;
    case Values::Kind::kModel:
      return offers.model;
    case Values::Kind::kMethod:
      return offers.method;
    default:
      return "";
  }
}

constexpr char kNames[] = R"(_limpid_names() {
  command limpid --deadline 2s --attempts 1 "$1" 2>/dev/null |
    awk -v kind="$1" 'kind == "models" { if (NR > 1) print $1; next }
                      /^$/ { body = 1; next } body && /^[a-z]/ { print $1 }'
}
)";

// The part that bash and zsh share: a case for the flag before the cursor, then
// one for the command.
std::string Cases(const CommandWords& limpid,
                  const std::vector<CommandWords>& commands,
                  const Offers& offers) {
  // A flag means the same in every command.
  std::map<std::string, std::vector<std::string>> flags_by_offer;
  std::map<std::string, bool> seen;
  const auto take = [&](const CommandWords& command) {
    for (const Flag& flag : command.flags) {
      if (flag.values.kind == Values::Kind::kNone || seen[flag.name]) continue;
      seen[flag.name] = true;
      flags_by_offer[Offer(offers, flag.values)].push_back(flag.name);
    }
  };
  take(limpid);
  for (const CommandWords& command : commands) take(command);
  std::string out = "  case $before in\n";
  for (const auto& [offer, flags] : flags_by_offer) {
    absl::StrAppend(&out, "    ", absl::StrJoin(flags, " | "), ") ",
                    offer.empty() ? "" : offer + "; ", "return ;;\n");
  }
  std::vector<Flag> global;  // that may stand after a command, too
  for (const Flag& flag : limpid.flags) {
    if (flag.name != "--help" && flag.name != "--version") {
      global.push_back(flag);
    }
  }
  absl::StrAppend(&out, "  esac\n  case $command in\n");
  for (const CommandWords& command : commands) {
    Values words{Values::Kind::kWords, {NamesOf(command.flags)}};
    words.words.push_back(NamesOf(global));
    absl::StrAppend(&out, "    ", command.name, ") ", Offer(offers, words));
    const std::string argument = Offer(offers, command.argument);
    if (!argument.empty()) absl::StrAppend(&out, "; ", argument);
    absl::StrAppend(&out, " ;;\n");
  }
  Values words{Values::Kind::kWords,
               {NamesOf(commands, " "), NamesOf(limpid.flags)}};
  absl::StrAppend(&out, "    *) ", Offer(offers, words), " ;;\n  esac\n");
  return out;
}

std::string Bash(const CommandWords& limpid,
                 const std::vector<CommandWords>& commands) {
  const Offers offers = {
      .words = "COMPREPLY+=($(compgen -W '%W' -- \"$current\"))",
      .file =
          "compopt -o filenames; "
          "COMPREPLY+=($(compgen -f -- \"$current\"))",
      .folder =
          "compopt -o filenames; "
          "COMPREPLY+=($(compgen -d -- \"$current\"))",
      .model =
          "COMPREPLY+=($(compgen -W \"$(_limpid_names models)\" -- "
          "\"$current\"))",
      .method =
          "COMPREPLY+=($(compgen -W \"$(_limpid_names methods)\" -- "
          "\"$current\"))"};
  return absl::StrCat(
      "# Completion of limpid for bash, made by `limpid completion bash`.\n",
      kNames, "_limpid() {\n",
      "  local current=${COMP_WORDS[COMP_CWORD]} command='' i\n",
      "  local before=${COMP_WORDS[COMP_CWORD - 1]}\n", "  COMPREPLY=()\n",
      "  for ((i = 1; i < COMP_CWORD; ++i)); do\n",
      "    case ${COMP_WORDS[i]} in\n      ", NamesOf(commands, " | "),
      ") command=${COMP_WORDS[i]}; break ;;\n    esac\n  done\n",
      Cases(limpid, commands, offers), "}\ncomplete -F _limpid limpid\n");
}

std::string Zsh(const CommandWords& limpid,
                const std::vector<CommandWords>& commands) {
  const Offers offers = {
      .words = "compadd -- %W",
      .file = "_files",
      .folder = "_files -/",
      .model = "compadd -- ${(f)\"$(_limpid_names models)\"}",
      .method = "compadd -- ${(f)\"$(_limpid_names methods)\"}"};
  return absl::StrCat(
      "#compdef limpid\n",
      "# Completion of limpid for zsh, made by `limpid completion zsh`.\n",
      kNames, "_limpid() {\n", "  local command='' word\n",
      "  local before=${words[CURRENT - 1]}\n",
      "  for word in ${words[2,CURRENT - 1]}; do\n",
      "    case $word in\n      ", NamesOf(commands, " | "),
      ") command=$word; break ;;\n    esac\n  done\n",
      Cases(limpid, commands, offers), "}\n",
      "if [[ ${funcstack[1]} == _limpid ]]; then\n  _limpid \"$@\"\n"
      "else\n  compdef _limpid limpid\nfi\n");
}

std::string Fish(const CommandWords& limpid,
                 const std::vector<CommandWords>& commands) {
  const Offers offers = {.words = "-x -a '%W'",
                         .file = "-r -F",
                         .folder = "-x -a '(__fish_complete_directories)'",
                         .model = "-x -a '(_limpid_names models)'",
                         .method = "-x -a '(_limpid_names methods)'"};
  std::string out =
      "# Completion of limpid for fish, made by `limpid completion fish`.\n"
      "function _limpid_names\n"
      "  if test $argv[1] = models\n"
      "    command limpid --deadline 2s --attempts 1 models 2>/dev/null |\n"
      "      awk 'NR > 1 { print $1 }'\n"
      "  else\n"
      "    command limpid --deadline 2s --attempts 1 methods 2>/dev/null |\n"
      "      awk '/^$/ { body = 1; next } body && /^[a-z]/ { print $1 }'\n"
      "  end\n"
      "end\n"
      "complete -c limpid -f\n";
  const auto add = [&](const CommandWords& command,
                       const std::string& condition) {
    for (const Flag& flag : command.flags) {
      std::string values = Offer(offers, flag.values);
      if (flag.values.kind == Values::Kind::kAny) values = "-x";
      absl::StrAppend(&out, "complete -c limpid ", condition, "-l ",
                      flag.name.substr(2), values.empty() ? "" : " ", values,
                      " -d '", flag.help, "'\n");
    }
  };
  add(limpid, "");
  for (const CommandWords& command : commands) {
    absl::StrAppend(&out, "complete -c limpid -n __fish_use_subcommand -a ",
                    command.name, " -d '", command.help, "'\n");
    const std::string inside =
        absl::StrCat("-n '__fish_seen_subcommand_from ", command.name, "' ");
    add(command, inside);
    const std::string argument = Offer(offers, command.argument);
    if (!argument.empty()) {
      absl::StrAppend(&out, "complete -c limpid ", inside, argument, "\n");
    }
  }
  return out;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, const std::string& shell) {
  const CommandWords limpid = WordsOf(app);
  std::vector<CommandWords> commands;
  for (const CLI::App* command : app.get_subcommands(
           [](const CLI::App* sub) { return !sub->get_name().empty(); })) {
    commands.push_back(WordsOf(*command));
  }
  if (shell == "bash") return Bash(limpid, commands);
  if (shell == "zsh") return Zsh(limpid, commands);
  if (shell == "fish") return Fish(limpid, commands);
  return "";
}

}  // namespace limpid::cli
