// SPDX-License-Identifier: Apache-2.0
#include "client/cli/compare_command.h"

#include <algorithm>
#include <cmath>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/cli/comparison.h"
#include "client/cli/error_text.h"
#include "client/cli/explain_view.h"
#include "client/cli/json_output.h"
#include "client/cli/pictures.h"
#include "client/cli/report.h"
#include "client/cli/request_builder.h"
#include "client/cli/text_layout.h"
#include "client/files.h"

namespace limpid::cli {
namespace {

constexpr size_t kMaxSides = 8;

// "A" for the first explanation.
std::string Letter(size_t i) {
  return std::string(1, static_cast<char>('A' + i));
}

// One request per model and method. Errors are wrong usage.
absl::StatusOr<std::vector<v1::ExplainRequest>> BuildRequests(
    const ExplainFlags& flags) {
  const std::vector<std::string> models = absl::StrSplit(flags.model, ',');
  const std::vector<std::string> methods =
      absl::StrSplit(flags.method.value_or(""), ',');
  if (models.size() * methods.size() < 2 ||
      models.size() * methods.size() > kMaxSides) {
    return absl::InvalidArgumentError(absl::StrCat(
        "compare needs 2 to ", kMaxSides, " explanations, got ",
        models.size() * methods.size(),
        ": name several models (--model A,B) or methods (--method A,B)"));
  }
  absl::StatusOr<v1::Input> input = BuildInput(flags);
  if (!input.ok()) return input.status();
  std::vector<v1::ExplainRequest> requests;
  for (const std::string& model : models) {
    for (const std::string& method : methods) {
      ExplainFlags one = flags;
      one.model = model;
      one.method = method.empty() ? std::optional<std::string>() : method;
      // Tokens differ from model to model, words do not.
      if (models.size() > 1 && input->has_text() && !one.aggregate) {
        one.aggregate = "word";
      }
      absl::StatusOr<v1::ExplainRequest> request = BuildRequest(one);
      if (!request.ok()) return request.status();
      *request->mutable_input() = *input;
      requests.push_back(*std::move(request));
    }
  }
  return requests;
}

absl::StatusOr<std::vector<Explanation>> ExplainAll(
    Client& client, const std::vector<v1::ExplainRequest>& requests) {
  std::vector<std::promise<absl::StatusOr<Explanation>>> promises(
      requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    client.ExplainAsync(requests[i], [&promise = promises[i]](auto result) {
      promise.set_value(std::move(result));
    });
  }
  // All are waited for: their callbacks hold the promises.
  std::vector<Explanation> explanations;
  absl::Status status;
  for (auto& promise : promises) {
    absl::StatusOr<Explanation> result = promise.get_future().get();
    status.Update(result.status());
    if (result.ok()) explanations.push_back(*std::move(result));
  }
  if (!status.ok()) return status;
  return explanations;
}

void PrintTable(Terminal& terminal, const Comparison& comparison) {
  constexpr int kColumn = 12;
  std::vector<render::ValueRange> ranges;
  terminal.out << absl::StreamFormat("%6s", "index");
  for (size_t i = 0; i < comparison.values.size(); ++i) {
    ranges.push_back(render::RangeOf(comparison.values[i]));
    terminal.out << absl::StreamFormat("  %*s", kColumn, Letter(i));
  }
  terminal.out << "  " << comparison.unit << "\n";
  for (size_t i = 0; i < comparison.labels.size(); ++i) {
    terminal.out << absl::StreamFormat("%6d", i);
    for (size_t side = 0; side < ranges.size(); ++side) {
      const float value = comparison.values[side][i];
      terminal.out << "  "
                   << Colored(terminal.color, ranges[side].Color(value),
                              absl::StrFormat("%*.5g", kColumn, value));
    }
    terminal.out << "  " << Isolated(Safe(comparison.labels[i])) << "\n";
  }
}

void PrintAgreement(Terminal& terminal, const Comparison& comparison) {
  const size_t k = std::min<size_t>(5, comparison.values[0].size());
  for (size_t a = 0; a < comparison.values.size(); ++a) {
    for (size_t b = a + 1; b < comparison.values.size(); ++b) {
      const auto &x = comparison.values[a], &y = comparison.values[b];
      const double rank = RankCorrelation(x, y);
      const std::string text = absl::StrCat(
          Letter(a), " and ", Letter(b), ": rank correlation ",
          std::isnan(rank) ? "undefined" : absl::StrFormat("%.2f", rank), ", ",
          TopOverlap(x, y, k), " of the ", k, " largest in common");
      for (const std::string& part : WrapText(text, terminal.columns)) {
        terminal.out << part << "\n";
      }
    }
  }
}

absl::Status PrintJson(Terminal& terminal,
                       const std::vector<Explanation>& explanations,
                       const Comparison& comparison) {
  std::string out = "{\"explanations\":[";
  for (size_t i = 0; i < explanations.size(); ++i) {
    const absl::StatusOr<std::string> json = ExplanationJson(explanations[i]);
    if (!json.ok()) return json.status();
    absl::StrAppend(&out, i == 0 ? "" : ",", *json);
  }
  absl::StrAppend(&out, "],\"unit\":\"", comparison.unit, "\",\"agreement\":[");
  const char* separator = "";
  for (size_t a = 0; a < comparison.values.size(); ++a) {
    for (size_t b = a + 1; b < comparison.values.size(); ++b) {
      const double rank =
          RankCorrelation(comparison.values[a], comparison.values[b]);
      absl::StrAppend(&out, separator, "{\"first\":", a, ",\"second\":", b,
                      ",\"rankCorrelation\":",
                      std::isnan(rank) ? "\"NaN\"" : absl::StrCat(rank), "}");
      separator = ",";
    }
  }
  terminal.out << out << "]}\n";
  return absl::OkStatus();
}

absl::Status Show(const CommandLine& line,
                  const std::vector<Explanation>& explanations,
                  Terminal& terminal) {
  const absl::StatusOr<Comparison> comparison = Compare(explanations);
  if (!comparison.ok()) return comparison.status();
  if (line.json) return PrintJson(terminal, explanations, *comparison);
  for (size_t i = 0; i < explanations.size(); ++i) {
    terminal.out << Letter(i) << "  "
                 << Safe(absl::StrCat(explanations[i].header.model(), ", ",
                                      explanations[i].header.method()))
                 << "\n";
    PrintSide(terminal, explanations[i]);
  }
  terminal.out << "\n";
  if (!comparison->labels.empty()) {
    PrintTable(terminal, *comparison);
    terminal.out << "\n";
  }
  PrintAgreement(terminal, *comparison);
  return absl::OkStatus();
}

absl::Status WriteFiles(const ExplainFlags& flags, const v1::Input& input,
                        const std::vector<Explanation>& explanations) {
  const auto write = [](const std::optional<std::string>& path,
                        const auto& render) {
    if (!path) return absl::OkStatus();
    const absl::StatusOr<std::string> bytes = render();
    if (!bytes.ok()) return bytes.status();
    return WriteWholeFile(*path, *bytes);
  };
  const bool matrices = flags.attention == "matrix";
  const std::optional<Underlay> underlay = UnderlayOf(input, flags.opacity);
  const absl::Status status =
      write(flags.png, [&] { return AttributionPng(explanations, underlay); });
  if (!status.ok()) return status;
  return write(flags.html,
               [&] { return ReportHtml(explanations, matrices, underlay); });
}

}  // namespace

int RunCompare(Client& client, const CommandLine& line, Terminal& terminal) {
  const absl::StatusOr<std::vector<v1::ExplainRequest>> requests =
      BuildRequests(line.explain);
  if (!requests.ok()) {
    terminal.err << "limpid: " << Safe(requests.status().message()) << "\n";
    return kExitUsage;
  }
  const absl::StatusOr<std::vector<Explanation>> explanations =
      ExplainAll(client, *requests);
  absl::Status status = explanations.status();
  if (status.ok()) status = Show(line, *explanations, terminal);
  if (status.ok()) {
    status = WriteFiles(line.explain, requests->front().input(), *explanations);
  }
  if (status.ok()) return kExitOk;
  PrintError(terminal, status, line.json);
  return kExitFailed;
}

}  // namespace limpid::cli
