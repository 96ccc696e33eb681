// SPDX-License-Identifier: Apache-2.0
#include "client/cli/error_text.h"

#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "client/cli/json_output.h"
#include "client/cli/text_layout.h"
#include "client/error_report.h"

namespace limpid::cli {
namespace {

std::string HintForReason(const std::string& reason) {
  static const auto* const hints = new std::map<std::string, std::string>{
      {"MODEL_NOT_FOUND", "`limpid models` lists the models"},
      {"MODEL_NOT_LOADED", "`limpid load NAME` makes it resident"},
      {"MODEL_UNLOADING", "`limpid load NAME` makes it resident again"},
      {"MODEL_FAILED",
       "`limpid model NAME` says what is wrong with its folder"},
      {"MODEL_MEMORY_FULL",
       "`limpid unload NAME` frees another model, or wait until one is idle"},
      {"METHOD_NOT_SUPPORTED_BY_ARCHITECTURE",
       "`limpid methods` says which method serves which architecture"},
      {"FORM_NOT_SUPPORTED_BY_ARCHITECTURE",
       "`limpid model NAME` lists the forms that it has"},
      {"WRONG_MODALITY",
       "`limpid model NAME` says whether it reads text (--text, --tokens) or "
       "pictures (--image, --pixels)"},
      {"TOKENIZER_MISSING", "give token ids: --tokens 1,2,3"},
      {"REQUEST_TOO_LARGE",
       "a shorter input, fewer --layers, or --attention row needs less; "
       "--validate-only tells the cost"},
      {"QUEUE_FULL", "more --attempts, or fewer requests at a time"},
      {"CLIENT_QUEUE_FULL", "more --attempts, or fewer requests at a time"},
      {"DEADLINE_TOO_SHORT", "a longer --deadline"},
      {"TOKEN_MISSING", "--token-file FILE sends the token in its first line"},
      {"TOKEN_UNKNOWN", "--token-file names a file with another token"},
      {"ROLE_MISSING", "loading and unloading need a token with role admin"},
      {"OUT_OF_MEMORY", "a shorter input, or --attention row, needs less"},
      {"DEVICE_LOST", "more --attempts: the server is being started again"},
  };
  const auto found = hints->find(reason);
  return found == hints->end() ? "" : found->second;
}

}  // namespace

std::string WhatToTry(const absl::Status& status) {
  const std::string reason = GetErrorReport(status).reason;
  std::string hint = HintForReason(reason);
  if (!hint.empty()) return hint;
  if (absl::IsUnavailable(status) && reason.empty()) {
    return "is the server running there, with TLS if --ca is given? It prints "
           "its address as it starts; --server or LIMPID_SERVER names it";
  }
  if (absl::IsDeadlineExceeded(status)) {
    return "a longer --deadline; `limpid explain --validate-only` tells the "
           "cost";
  }
  return "";
}

std::string FlagOfField(const std::string& field) {
  static const auto* const flags = new std::map<std::string, std::string>{
      {"model", "--model"},
      {"method", "--method"},
      {"input.text", "--text"},
      {"input.tokens", "--tokens"},
      {"input.image", "--image"},
      {"input.pixels", "--pixels"},
      {"attention.kind", "--attention"},
      {"attention.channel_reduction", "--channels"},
      {"attention.form", "--form"},
      {"attention.layers", "--layers"},
      {"attention.channels", "--channel-list"},
      {"attention.head_form", "--head-form"},
      {"attention.include_skip", "--include-skip"},
      {"attention.downsample", "--downsample"},
      {"attention.top_k", "--attention-top-k"},
      {"output.top_k", "--top-k"},
      {"output.attention_data_type", "--dtype"},
      {"precision", "--precision"},
      {"aggregation", "--aggregate"},
      {"faithfulness", "--faithfulness"}};
  // Without what names an entry or a part of the field: "[3]", ".ids[0]".
  std::string path = field;
  for (;;) {
    const auto found = flags->find(path);
    if (found != flags->end()) return found->second;
    const size_t end = path.find_last_of(".[");
    if (end == std::string::npos) break;
    path.resize(end);
  }
  if (absl::StartsWith(field, "points")) {
    return absl::StrContains(field, "target") ? "--target" : "--position";
  }
  return absl::StartsWith(field, "options.") ? "--option" : "";
}

void PrintError(Terminal& terminal, const absl::Status& status) {
  const ErrorReport report = GetErrorReport(status);
  const auto print = [&terminal](const std::string& indent,
                                 const std::string& text) {
    const int width = terminal.columns - static_cast<int>(indent.size());
    for (const std::string& part :
         WrapText(text, terminal.columns ? width : 0)) {
      terminal.err << indent << part << "\n";
    }
  };
  print("",
        Safe(absl::StrCat(
            "limpid: ", CanonicalName(status.code()),
            report.reason.empty() ? "" : absl::StrCat(" (", report.reason, ")"),
            ": ", status.message())));
  for (const auto& [field, what] : report.violations) {
    const std::string flag = FlagOfField(field);
    // With one wrong field the message often says it all.
    const bool said = absl::StrContains(status.message(), what);
    print("  ", Safe(absl::StrCat(field, flag.empty() ? "" : " (", flag,
                                  flag.empty() ? "" : ")", said ? "" : ": ",
                                  said ? "" : what)));
  }
  for (const auto& [key, value] : report.metadata) {
    const std::string listed = absl::StrReplaceAll(value, {{",", ", "}});
    if (key == "request_id" || absl::StrContains(status.message(), listed)) {
      continue;
    }
    print("  ", Safe(absl::StrCat(key, " = ", value)));
  }
  if (report.retry_after) {
    print("  ", absl::StrCat("try again after ",
                             absl::FormatDuration(*report.retry_after)));
  }
  if (const std::string hint = WhatToTry(status); !hint.empty()) {
    print("  ", "to try: " + hint);
  }
  if (!report.request_id.empty()) {
    print("  ", Safe("request id " + report.request_id));
  }
  terminal.err << std::flush;
}

void PrintError(Terminal& terminal, const absl::Status& status, bool json) {
  if (!json) {
    PrintError(terminal, status);
    return;
  }
  terminal.err << "{\"error\":" << ErrorJson(status) << "}\n" << std::flush;
}

}  // namespace limpid::cli
