// SPDX-License-Identifier: Apache-2.0
#include "client/cli/bench_command.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/bench/load.h"
#include "client/bench/report.h"
#include "client/bench/workload.h"
#include "client/cli/error_text.h"
#include "client/cli/flag_values.h"

namespace limpid::cli {
namespace {

absl::StatusOr<std::vector<v1::Model>> ChooseModels(
    Client& client, const std::vector<std::string>& names) {
  std::vector<v1::Model> chosen;
  for (const std::string& name : names) {
    absl::StatusOr<v1::Model> model = client.GetModel(name);
    if (!model.ok()) return model.status();
    chosen.push_back(*std::move(model));
  }
  if (names.empty()) {
    absl::StatusOr<std::vector<v1::Model>> all = client.ListModels();
    if (!all.ok()) return all.status();
    std::copy_if(all->begin(), all->end(), std::back_inserter(chosen),
                 [](const v1::Model& model) {
                   return model.state() == v1::MODEL_STATE_READY &&
                          model.modality() == v1::MODALITY_TEXT;
                 });
  }
  for (const v1::Model& model : chosen) {
    if (model.modality() != v1::MODALITY_TEXT) {
      return ClientError(absl::StatusCode::kFailedPrecondition, "NOT_READY",
                         absl::StrCat("the model \"", model.name(),
                                      "\" is not ready, or reads no text"));
    }
  }
  if (chosen.empty()) {
    return ClientError(absl::StatusCode::kFailedPrecondition, "NOT_READY",
                       "no model that reads text is ready");
  }
  return chosen;
}

absl::StatusOr<bench::Summary> Bench(Client& client, const CommandLine& line) {
  const BenchFlags& flags = line.bench;
  absl::StatusOr<std::vector<v1::Model>> models =
      ChooseModels(client, flags.models);
  if (!models.ok()) return models.status();
  // The first of them, because an interrupt cancels it.
  std::vector<Client*> clients = {&client};
  std::vector<std::unique_ptr<Client>> others;
  while (static_cast<int>(clients.size()) < flags.clients) {
    absl::StatusOr<std::unique_ptr<Client>> other = Client::Create(line.client);
    if (!other.ok()) return other.status();
    clients.push_back(other->get());
    others.push_back(*std::move(other));
  }
  const bench::Workload workload(
      {*std::move(models), flags.lengths, flags.method, flags.max_residual});
  bench::LoadOptions options;
  options.clients = flags.clients;
  options.duration = *ParseDeadline(flags.duration);
  if (flags.rate > 0) options.rate = flags.rate;
  options.max_in_flight = flags.max_in_flight;
  options.seed = flags.seed;
  return bench::Summarize(bench::RunLoad(
      options, workload, [&](int which, const v1::ExplainRequest& request) {
        return clients[which]->Explain(request);
      }));
}

}  // namespace

int RunBench(Client& client, const CommandLine& line, Terminal& terminal) {
  absl::StatusOr<bench::Summary> summary = Bench(client, line);
  if (!summary.ok()) {
    PrintError(terminal, summary.status(), line.bench.json);
    return kExitFailed;
  }
  summary->first_mistake = Safe(summary->first_mistake);
  terminal.out << (line.bench.json ? bench::SummaryJson(*summary)
                                   : bench::SummaryText(*summary))
               << std::flush;
  return summary->Passed() ? kExitOk : kExitFailed;
}

}  // namespace limpid::cli
