// SPDX-License-Identifier: Apache-2.0
#include "client/cli/evaluate_command.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/error_text.h"
#include "client/cli/flag_values.h"
#include "client/evaluate/grounding.h"
#include "client/evaluate/lexicon.h"
#include "client/evaluate/picture_data.h"
#include "client/evaluate/picture_protocols.h"
#include "client/evaluate/report.h"
#include "client/evaluate/runner.h"
#include "client/evaluate/score_store.h"
#include "client/evaluate/seeded_random.h"
#include "client/evaluate/segmentation_file.h"
#include "client/evaluate/text_curves.h"
#include "client/files.h"

namespace limpid::cli {
namespace {

using evaluate::DataError;
using evaluate::Protocol;

// A protocol with its data.
struct Task {
  std::unique_ptr<Protocol> protocol;
  uint64_t fingerprint = 0;  // of the data
};

absl::StatusOr<Task> MakeTextTask(const EvaluateFlags& flags) {
  const absl::StatusOr<std::string> lines = ReadWholeFile(flags.data);
  if (!lines.ok()) return lines.status();
  evaluate::TextOptions options;
  options.classes = flags.classes;
  options.replacement = flags.replacement;
  const size_t limit =
      flags.items > 0 ? static_cast<size_t>(flags.items) : SIZE_MAX;
  auto sentences = evaluate::ParseSentences(*lines, limit);
  if (!sentences.ok()) {
    return DataError(
        absl::StrCat(flags.data, ": ", sentences.status().message()));
  }
  options.sentences = *std::move(sentences);
  absl::StatusOr<std::unique_ptr<Protocol>> protocol;
  std::string words;
  if (flags.protocol == "lexicon") {
    absl::StatusOr<std::string> read = ReadWholeFile(flags.words);
    if (!read.ok()) return read.status();
    words = *std::move(read);
    const auto ratings = evaluate::ParseRatings(words);
    if (!ratings.ok()) {
      return DataError(
          absl::StrCat(flags.words, ": ", ratings.status().message()));
    }
    protocol = evaluate::MakeLexicon(options, *ratings);
  } else if (flags.protocol == "activation") {
    protocol = evaluate::MakeActivation(options);
  } else if (flags.protocol == "pruning") {
    protocol = evaluate::MakePruning(options);
  } else {
    protocol = evaluate::MakeTextPerturbation(options);
  }
  if (!protocol.ok()) return protocol.status();
  return Task{*std::move(protocol), evaluate::MixSeed(0, {*lines, words})};
}

absl::StatusOr<Task> MakePictureTask(const EvaluateFlags& flags) {
  evaluate::PictureOptions options;
  options.size = flags.picture_size;
  options.limit = static_cast<size_t>(flags.items);
  options.masks = flags.protocol == "segmentation";
  auto pictures = absl::EndsWith(flags.data, ".mat")
                      ? evaluate::ReadSegmentationFile(flags.data, options)
                      : evaluate::ReadPictureFolder(flags.data, options);
  if (!pictures.ok()) return pictures.status();
  uint64_t fingerprint = 0;
  for (const evaluate::Picture& picture : *pictures) {
    const auto text = [](const std::vector<uint8_t>& bytes) {
      return absl::string_view(reinterpret_cast<const char*>(bytes.data()),
                               bytes.size());
    };
    fingerprint = evaluate::MixSeed(
        fingerprint, {text(picture.image.pixels), text(picture.mask)});
  }
  return Task{options.masks
                  ? evaluate::MakeSegmentation(*std::move(pictures))
                  : evaluate::MakePicturePerturbation(*std::move(pictures)),
              fingerprint};
}

absl::StatusOr<Task> MakeTask(const EvaluateFlags& flags,
                              v1::Modality modality) {
  const bool pictures = modality == v1::MODALITY_IMAGE;
  if (flags.protocol == "segmentation"
          ? !pictures
          : pictures && flags.protocol != "perturbation") {
    return DataError(absl::StrCat(flags.protocol,
                                  " is not for models that "
                                  "read ",
                                  pictures ? "pictures" : "text"));
  }
  if (pictures) return MakePictureTask(flags);
  if (flags.protocol != "grounding") return MakeTextTask(flags);
  evaluate::GroundingOptions options;
  if (flags.items > 0) options.items = static_cast<size_t>(flags.items);
  options.least_pairs = flags.least_pairs;
  options.most_pairs = flags.most_pairs;
  options.seed = flags.seed;
  return Task{evaluate::MakeGrounding(options), 0};
}

// Everything that scores depend on.
std::string Settings(const EvaluateFlags& flags, const Task& task,
                     const v1::Model& model) {
  const nlohmann::ordered_json json = {
      {"protocol", flags.protocol},
      {"model", model.name()},
      {"model_digest", model.digest()},
      {"data", absl::StrFormat("%016x", task.fingerprint)},
      {"items", task.protocol->num_items()},
      {"pairs", {flags.least_pairs, flags.most_pairs}},
      {"classes", flags.classes},
      {"replacement", flags.replacement},
      {"picture_size", flags.picture_size},
      {"options", flags.options},
      {"seed", flags.seed}};
  return json.dump(1) + "\n";
}

absl::Status WriteResults(const std::string& folder, const Protocol& protocol,
                          const evaluate::Results& results,
                          const evaluate::ReportContext& context) {
  absl::Status status;
  const auto write = [&](const char* name, const std::string& content) {
    if (content.empty()) return;
    status.Update(WriteWholeFile(absl::StrCat(folder, "/", name), content));
  };
  write("results.json", evaluate::ResultsJson(protocol, results, context));
  write("table.md", evaluate::ResultsMarkdown(protocol, results, context));
  write("intervals.svg", evaluate::IntervalsSvg(protocol, results, context));
  write("curves.svg", evaluate::CurvesSvg(protocol, results));
  return status;
}

absl::Status Evaluate(Client& client, const EvaluateFlags& flags,
                      const v1::MethodOptions& method_options,
                      Terminal& terminal) {
  const absl::StatusOr<v1::Model> model = client.GetModel(flags.model);
  if (!model.ok()) return model.status();
  const auto methods = client.ListMethods();
  if (!methods.ok()) return methods.status();
  const absl::StatusOr<Task> task = MakeTask(flags, model->modality());
  if (!task.ok()) return task.status();
  auto store =
      evaluate::ScoreStore::Open(flags.out, Settings(flags, *task, *model));
  if (!store.ok()) return store.status();
  evaluate::RunOptions options{flags.parallel, flags.seed, flags.resamples,
                               method_options};
  absl::StatusOr<evaluate::Results> results;
  {
    ProgressLine progress(terminal);
    results = evaluate::RunProtocol(
        *task->protocol, *model, *methods,
        [&client](const v1::ExplainRequest& request) {
          return client.Explain(request);
        },
        options, **store,
        [&](int64_t done, int64_t total) {
          progress.Show(done, total, "items");
        });
  }
  if (!results.ok()) return results.status();
  const evaluate::ReportContext context{model->name(), model->digest(),
                                        model->architecture(), flags.seed,
                                        flags.resamples};
  const Protocol& protocol = *task->protocol;
  terminal.out << (flags.json
                       ? evaluate::ResultsJson(protocol, *results, context)
                       : evaluate::ResultsMarkdown(protocol, *results, context))
               << std::flush;
  if (flags.out.empty()) return absl::OkStatus();
  return WriteResults(flags.out, protocol, *results, context);
}

}  // namespace

int RunEvaluate(Client& client, const CommandLine& line, Terminal& terminal) {
  v1::MethodOptions options;
  for (const std::string& option : line.evaluate.options) {
    if (const absl::Status set = SetMethodOption(option, options); !set.ok()) {
      terminal.err << "limpid: --option: " << Safe(set.message()) << "\n";
      return kExitUsage;
    }
  }
  const absl::Status status =
      Evaluate(client, line.evaluate, options, terminal);
  if (status.ok()) return kExitOk;
  PrintError(terminal, status, line.evaluate.json);
  return kExitFailed;
}

}  // namespace limpid::cli
