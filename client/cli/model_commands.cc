// SPDX-License-Identifier: Apache-2.0
#include "client/cli/model_commands.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/cli/error_text.h"
#include "client/cli/json_output.h"
#include "client/cli/text_layout.h"

namespace limpid::cli {
namespace {

int Failed(Terminal& terminal, const absl::Status& status, bool json) {
  PrintError(terminal, status, json);
  return kExitFailed;
}

// "ready" for MODEL_STATE_READY.
std::string Word(const std::string& name, const std::string& prefix) {
  if (name.empty()) return "unknown";
  return absl::AsciiStrToLower(absl::StripPrefix(name, prefix));
}

std::string StateOf(const v1::Model& model) {
  return Word(v1::ModelState_Name(model.state()), "MODEL_STATE_");
}

std::string ModalityOf(const v1::Model& model) {
  return Word(v1::Modality_Name(model.modality()), "MODALITY_");
}

std::string Bytes(int64_t bytes) {
  return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string VersionOf(const v1::Model& model) {
  return model.version() == 0 ? "-" : absl::StrCat(model.version());
}

using Rows = std::vector<std::vector<std::string>>;

// Of each column with the two blanks behind it.
std::vector<int> WidthsOf(const Rows& rows) {
  std::vector<int> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) {
      // The last entry of a shorter row has the rest of the line.
      if (i + 1 == row.size() && row.size() < rows.front().size()) continue;
      widths[i] = std::max(widths[i], DisplayWidth(row[i]) + 2);
    }
  }
  return widths;
}

int WidthOf(const Rows& rows) {
  const std::vector<int> widths = WidthsOf(rows);
  return std::accumulate(widths.begin(), widths.end(), -2);
}

// Columns as wide as their widest entry; the last one is wrapped to the
// terminal.
void PrintRows(Terminal& terminal, const Rows& rows) {
  const std::vector<int> widths = WidthsOf(rows);
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      line += FitToWidth(row[i], widths[i]);
    }
    const int left = DisplayWidth(line);
    const int room =
        terminal.columns > 0 ? std::max(20, terminal.columns - left) : 0;
    for (const std::string& part : WrapText(row.back(), room)) {
      terminal.out << line << part << "\n";
      line.assign(static_cast<size_t>(left), ' ');
    }
  }
}

void PrintModel(Terminal& terminal, const v1::Model& model) {
  std::vector<std::vector<std::string>> rows = {{"name", Safe(model.name())},
                                                {"state", StateOf(model)}};
  if (!model.state_reason().empty()) {
    rows.push_back(
        {"reason", Safe(absl::StrCat(model.state_reason(), " (",
                                     model.state_reason_code(), ")"))});
  }
  if (model.available_versions_size() > 0) {
    rows.push_back({"version", VersionOf(model)});
    rows.push_back({"versions in the repository",
                    absl::StrJoin(model.available_versions(), ", ")});
  }
  if (!model.architecture().empty()) {
    const auto add = [&rows](const char* name, const std::string& value) {
      rows.push_back({name, Safe(value)});
    };
    add("architecture",
        model.architecture() + (model.experimental() ? " (experimental)" : ""));
    add("digest", model.digest());
    add("modality", ModalityOf(model));
    add("tokenizer", model.has_tokenizer() ? "yes" : "no: token ids only");
    add("layers", absl::StrCat(model.num_layers()));
    add("hidden size", absl::StrCat(model.hidden_size()));
    add("channels", absl::StrCat(model.num_channels()));
    add("state size", absl::StrCat(model.state_size()));
    add("vocabulary or classes", absl::StrCat(model.vocabulary_size()));
    add("longest input", absl::StrCat(model.max_tokens(), " tokens"));
    add("weights", Bytes(model.resident_bytes()));
    add("device", model.device());
    add("causal", model.causal() ? "yes" : "no");
    add("methods", absl::StrJoin(model.methods(), ", "));
    add("forms", absl::StrJoin(model.forms(), ", "));
  }
  PrintRows(terminal, rows);
}

template <class Messages>
int PrintJsonList(Terminal& terminal, const Messages& messages) {
  std::vector<std::string> entries;
  for (const auto& message : messages) {
    const absl::StatusOr<std::string> json = MessageJson(message);
    if (!json.ok()) return Failed(terminal, json.status(), true);
    entries.push_back(*json);
  }
  terminal.out << "[" << absl::StrJoin(entries, ",") << "]\n";
  return kExitOk;
}

}  // namespace

int RunModels(Client& client, const CommandLine& line, Terminal& terminal) {
  const absl::StatusOr<std::vector<v1::Model>> models = client.ListModels();
  if (!models.ok()) return Failed(terminal, models.status(), line.json);
  if (line.json) return PrintJsonList(terminal, *models);
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "STATE", "ARCHITECTURE", "INPUT", "LAYERS", "WEIGHTS",
       "DEVICE"}};
  for (const v1::Model& model : *models) {
    if (model.architecture().empty()) {
      rows.push_back(
          {Safe(model.name()), StateOf(model), Safe(model.state_reason())});
      continue;
    }
    rows.push_back({Safe(model.name()), StateOf(model),
                    Safe(model.architecture()) +
                        (model.experimental() ? " (experimental)" : ""),
                    ModalityOf(model), absl::StrCat(model.num_layers()),
                    Bytes(model.resident_bytes()), Safe(model.device())});
  }
  const bool has_versions =
      std::any_of(models->begin(), models->end(), [](const v1::Model& model) {
        return model.available_versions_size() > 0;
      });
  if (has_versions) {
    rows.front().insert(rows.front().begin() + 1, "VERSION");
    for (size_t i = 0; i < models->size(); ++i) {
      auto& row = rows[i + 1];
      row.insert(row.begin() + 1, VersionOf((*models)[i]));
    }
  }
  // A narrow terminal shows what matters most; `limpid model` has the rest.
  while (terminal.columns > 0 && WidthOf(rows) > terminal.columns &&
         rows.front().size() > 3) {
    const size_t columns = rows.front().size() - 1;
    for (auto& row : rows) row.resize(std::min(row.size(), columns));
  }
  PrintRows(terminal, rows);
  return kExitOk;
}

int RunModel(Client& client, const CommandLine& line, Terminal& terminal) {
  const absl::StatusOr<v1::Model> model =
      line.command == Command::kLoad     ? client.LoadModel(line.name)
      : line.command == Command::kUnload ? client.UnloadModel(line.name)
                                         : client.GetModel(line.name);
  if (!model.ok()) return Failed(terminal, model.status(), line.json);
  if (!line.json) {
    PrintModel(terminal, *model);
    return kExitOk;
  }
  const absl::StatusOr<std::string> json = MessageJson(*model);
  if (!json.ok()) return Failed(terminal, json.status(), line.json);
  terminal.out << *json << "\n";
  return kExitOk;
}

// Which method serves which architecture: a row per architecture.
void PrintMethodMatrix(const std::vector<v1::Method>& methods,
                       Terminal& terminal) {
  // In the order of the method that serves most.
  std::vector<std::string> architectures;
  std::set<std::string> experimental;
  for (const v1::Method& method : methods) {
    for (const std::string& name : method.architectures()) {
      if (std::find(architectures.begin(), architectures.end(), name) ==
          architectures.end()) {
        architectures.push_back(name);
      }
    }
    experimental.insert(method.experimental_architectures().begin(),
                        method.experimental_architectures().end());
  }
  std::vector<std::vector<std::string>> table(1, {"ARCHITECTURE"});
  for (const v1::Method& method : methods) {
    table.front().push_back(Safe(method.name()));
  }
  for (const std::string& name : architectures) {
    std::vector<std::string> row = {
        Safe(name) + (experimental.count(name) > 0 ? " (experimental)" : "")};
    for (const v1::Method& method : methods) {
      const auto& served = method.architectures();
      row.push_back(
          std::find(served.begin(), served.end(), name) != served.end() ? "yes"
                                                                        : "-");
    }
    table.push_back(std::move(row));
  }
  // Where it does not fit, the lists of each method must do.
  if (terminal.columns > 0 && WidthOf(table) > terminal.columns) return;
  PrintRows(terminal, table);
  terminal.out << "\n";
}

int RunMethods(Client& client, const CommandLine& line, Terminal& terminal) {
  const absl::StatusOr<std::vector<v1::Method>> methods = client.ListMethods();
  if (!methods.ok()) return Failed(terminal, methods.status(), line.json);
  if (line.json) return PrintJsonList(terminal, *methods);
  PrintMethodMatrix(*methods, terminal);
  for (const v1::Method& method : *methods) {
    terminal.out << Safe(method.name()) << "\n";
    const auto print = [&terminal](const std::string& text) {
      const int width = std::max(0, terminal.columns - 2);
      for (const std::string& part : WrapText(Safe(text), width)) {
        terminal.out << "  " << part << "\n";
      }
    };
    print(method.description());
    if (!method.source().empty()) print("source: " + method.source());
    print("architectures: " + absl::StrJoin(method.architectures(), ", "));
    for (const v1::MethodOptionSpec& option : method.options()) {
      print(absl::StrCat("option ", option.name(), ": ", option.description()));
    }
  }
  return kExitOk;
}

int RunHealth(Client& client, const CommandLine& line, Terminal& terminal) {
  const absl::StatusOr<std::string> state = client.CheckHealth(line.name);
  if (!state.ok()) return Failed(terminal, state.status(), line.json);
  if (line.json) {
    terminal.out << "{\"status\":\"" << *state << "\"}\n";
  } else {
    terminal.out << *state << "\n";
  }
  return *state == "SERVING" ? kExitOk : kExitFailed;
}

}  // namespace limpid::cli
