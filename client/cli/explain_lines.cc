// SPDX-License-Identifier: Apache-2.0
//
// limpid explain --jsonl.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/explain_command.h"
#include "client/cli/json_output.h"
#include "client/cli/request_builder.h"

namespace limpid::cli {
namespace {

using Json = nlohmann::json;

absl::Status Unparsable(absl::string_view what) {
  return ClientError(
      absl::StatusCode::kInvalidArgument, "LINE_NOT_UNDERSTOOD",
      absl::StrCat("expected {\"text\": ...} or {\"tokens\": [...]}: ", what));
}

absl::StatusOr<v1::Input> ParseLine(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Unparsable("not a JSON object");
  v1::Input input;
  if (json.size() != 1) return Unparsable("exactly one key is needed");
  if (const auto found = json.find("text");
      found != json.end() && found->is_string()) {
    input.set_text(found->get<std::string>());
    return input;
  }
  const auto found = json.find("tokens");
  if (found == json.end() || !found->is_array()) {
    return Unparsable("neither a text nor a list of tokens");
  }
  input.mutable_tokens();
  for (const Json& id : *found) {
    if (!id.is_number_integer() ||
        (id.is_number_unsigned() && id.get<uint64_t>() > INT64_MAX)) {
      return Unparsable("a token is not an integer of 64 bits");
    }
    input.mutable_tokens()->add_ids(id.get<int64_t>());
  }
  return input;
}

// Explains one input with the request's other fields; the reply as JSON.
absl::StatusOr<std::string> ExplainOne(Client& client, v1::Input input,
                                       v1::ExplainRequest& request) {
  *request.mutable_input() = std::move(input);
  const absl::StatusOr<Explanation> explanation = client.Explain(request);
  if (!explanation.ok()) return explanation.status();
  return ExplanationJson(*explanation);
}

}  // namespace

int RunExplainLines(Client& client, const CommandLine& line,
                    Terminal& terminal) {
  absl::StatusOr<v1::ExplainRequest> request = BuildRequest(line.explain);
  if (!request.ok()) {
    terminal.err << "limpid: " << Safe(request.status().message()) << "\n";
    return kExitUsage;
  }
  std::ifstream file;
  const std::string& path = *line.explain.jsonl;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream& in = path == "-" ? std::cin : file;
  if (path != "-" && !file.is_open()) {
    terminal.err << "limpid: --jsonl: cannot read " << path << "\n";
    return kExitUsage;
  }
  ProgressLine progress(terminal);
  int code = kExitOk;
  int64_t number = 0;
  for (std::string text; std::getline(in, text);) {
    ++number;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    absl::StatusOr<v1::Input> input = ParseLine(text);
    if (!input.ok()) code = kExitUsage;
    const absl::StatusOr<std::string> json =
        input.ok() ? ExplainOne(client, *std::move(input), *request)
                   : input.status();
    if (!json.ok()) code = std::max(code, kExitFailed);
    progress.Clear();
    terminal.out << "{\"line\":" << number
                 << (json.ok() ? ",\"explanation\":" : ",\"error\":")
                 << (json.ok() ? *json : ErrorJson(json.status())) << "}\n"
                 << std::flush;
    if (!json.ok()) {
      terminal.err << "limpid: line " << number << "\n";
      PrintError(terminal, json.status());
    }
    if (absl::IsCancelled(json.status())) return kExitFailed;
    progress.Show(number, number, "lines");
  }
  if (in.bad()) {
    terminal.err << "limpid: --jsonl: cannot read " << path << "\n";
    return kExitFailed;
  }
  return code;
}

}  // namespace limpid::cli
