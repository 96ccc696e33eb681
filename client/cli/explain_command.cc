// SPDX-License-Identifier: Apache-2.0
#include "client/cli/explain_command.h"

#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/error_text.h"
#include "client/cli/explain_view.h"
#include "client/cli/json_output.h"
#include "client/cli/pictures.h"
#include "client/cli/report.h"
#include "client/cli/request_builder.h"
#include "client/cli/save_file.h"
#include "client/files.h"

namespace limpid::cli {
namespace {

absl::Status Wrote(const std::string& path, const absl::Status& status,
                   Terminal& terminal) {
  if (status.ok() && terminal.progress) {
    terminal.err << "wrote " << path << "\n";
  }
  return status;
}

absl::Status WriteResult(const std::string& path,
                         const absl::StatusOr<std::string>& bytes,
                         Terminal& terminal) {
  if (!bytes.ok()) return bytes.status();
  return Wrote(path, WriteWholeFile(path, *bytes), terminal);
}

absl::Status Save(const std::string& path, const Explanation& explanation,
                  Terminal& terminal) {
  return Wrote(path, SaveExplanation(path, explanation), terminal);
}

absl::Status WriteMatrices(const std::string& folder,
                           const Explanation& explanation, Terminal& terminal) {
  const absl::StatusOr<std::vector<LayerView>> layers =
      ViewLayers(explanation, /*matrices=*/true);
  if (!layers.ok()) return layers.status();
  for (const LayerView& layer : *layers) {
    const std::string name = absl::StrCat(folder, "/layer-", layer.layer);
    absl::Status status =
        WriteResult(name + ".png", LayerPng(explanation, layer), terminal);
    if (status.ok()) {
      status =
          WriteResult(name + ".svg", LayerSvg(explanation, layer), terminal);
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

bool HasMatrices(const ExplainFlags& flags) {
  return flags.attention == "matrix";
}

// Writes every file that the flags name. The first error ends it.
absl::Status WriteFiles(const ExplainFlags& flags, const v1::Input& input,
                        const Explanation& explanation, Terminal& terminal) {
  const bool matrices = HasMatrices(flags);
  const std::optional<Underlay> underlay = UnderlayOf(input, flags.opacity);
  const std::span<const Explanation> one(&explanation, 1);
  absl::Status status;
  if (flags.save) status = Save(*flags.save, explanation, terminal);
  if (status.ok() && flags.png) {
    status = WriteResult(*flags.png, AttributionPng(one, underlay), terminal);
  }
  if (status.ok() && flags.svg) {
    status = WriteResult(*flags.svg, AttributionSvg(explanation), terminal);
  }
  if (status.ok() && flags.html) {
    status =
        WriteResult(*flags.html, ReportHtml(one, matrices, underlay), terminal);
  }
  if (!status.ok() || !flags.out) return status;
  const std::string& folder = *flags.out;
  status = MakeFolder(folder);
  if (status.ok()) {
    status = Save(folder + "/explanation.safetensors", explanation, terminal);
  }
  if (status.ok()) {
    status = WriteResult(folder + "/explanation.json",
                         ExplanationJson(explanation), terminal);
  }
  if (status.ok()) {
    status = WriteResult(folder + "/attribution.png",
                         AttributionPng(one, underlay), terminal);
  }
  if (status.ok()) {
    status = WriteResult(folder + "/attribution.svg",
                         AttributionSvg(explanation), terminal);
  }
  if (status.ok()) {
    status = WriteResult(folder + "/report.html",
                         ReportHtml(one, matrices, underlay), terminal);
  }
  if (status.ok() && matrices) {
    status = WriteMatrices(folder, explanation, terminal);
  }
  return status;
}

// {"KEY": MESSAGE} on a line of its own.
void PrintJsonPart(Terminal& terminal, const char* key,
                   const google::protobuf::Message& message) {
  const absl::StatusOr<std::string> json = MessageJson(message);
  if (json.ok()) {
    terminal.out << "{\"" << key << "\":" << *json << "}\n" << std::flush;
  }
}

void PrintJsonTensor(Terminal& terminal, const v1::Tensor& tensor) {
  std::string values;
  if (AppendTensorJson(tensor, values).ok()) {
    terminal.out << "{\"tensor\":" << QuotedJson(tensor.header().name())
                 << ",\"values\":" << values << "}\n"
                 << std::flush;
  }
}

// The streamed call: parts are printed with --stream, else only progress is
// shown.
absl::StatusOr<Explanation> Stream(Client& client,
                                   const v1::ExplainRequest& request,
                                   const CommandLine& line,
                                   Terminal& terminal) {
  ProgressLine progress(terminal);
  StreamObserver observer;
  observer.on_progress = [&](const v1::Progress& part) {
    if (line.explain.stream && line.json) {
      PrintJsonPart(terminal, "progress", part);
    }
    progress.Show(part.done(), part.total(), part.unit());
  };
  if (line.explain.stream) {
    observer.on_header = [&](const v1::ExplanationHeader& header) {
      progress.Clear();
      line.json ? PrintJsonPart(terminal, "header", header)
                : PrintHeaderPart(terminal, header);
    };
    observer.on_tensor = [&](const v1::Tensor& tensor) {
      progress.Clear();
      line.json ? PrintJsonTensor(terminal, tensor)
                : PrintTensorPart(terminal, tensor);
    };
  }
  return client.StreamExplain(request, observer);
}

absl::Status Print(const CommandLine& line, const Explanation& explanation,
                   Terminal& terminal) {
  if (!line.json) {
    if (line.explain.stream) terminal.out << "\n";
    line.explain.validate_only
        ? PrintCost(terminal, explanation)
        : PrintExplanation(terminal, explanation,
                           {.layers = line.explain.layer_view,
                            .matrices = HasMatrices(line.explain)});
    return absl::OkStatus();
  }
  if (line.explain.stream && !line.explain.validate_only) {
    PrintJsonPart(terminal, "summary", explanation.summary);
    return absl::OkStatus();
  }
  const absl::StatusOr<std::string> json = ExplanationJson(explanation);
  if (json.ok()) terminal.out << *json << "\n";
  return json.status();
}

}  // namespace

int RunExplain(Client& client, const CommandLine& line, Terminal& terminal) {
  absl::StatusOr<v1::ExplainRequest> request = BuildRequest(line.explain);
  absl::StatusOr<v1::Input> input = BuildInput(line.explain);
  for (const absl::Status& status : {request.status(), input.status()}) {
    if (status.ok()) continue;
    terminal.err << "limpid: " << Safe(status.message()) << "\n";
    return kExitUsage;
  }
  *request->mutable_input() = *std::move(input);
  const bool streamed =
      (line.explain.stream || terminal.progress) && !request->validate_only();
  const absl::StatusOr<Explanation> explanation =
      streamed ? Stream(client, *request, line, terminal)
               : client.Explain(*request);
  absl::Status status = explanation.status();
  if (status.ok()) {
    status = Print(line, *explanation, terminal);
    if (status.ok()) {
      status =
          WriteFiles(line.explain, request->input(), *explanation, terminal);
    }
  }
  if (status.ok()) return kExitOk;
  PrintError(terminal, status, line.json);
  return kExitFailed;
}

}  // namespace limpid::cli
