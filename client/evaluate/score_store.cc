// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/score_store.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/error_report.h"
#include "client/files.h"

namespace limpid::evaluate {
namespace {

using Json = nlohmann::json;

}  // namespace

absl::StatusOr<std::unique_ptr<ScoreStore>> ScoreStore::Open(
    const std::string& folder, const std::string& settings) {
  if (folder.empty()) return std::unique_ptr<ScoreStore>(new ScoreStore(""));
  if (absl::Status made = MakeFolder(absl::StrCat(folder, "/items"));
      !made.ok()) {
    return made;
  }
  const std::string path = absl::StrCat(folder, "/settings.json");
  if (std::filesystem::exists(path)) {
    const absl::StatusOr<std::string> found = ReadWholeFile(path);
    if (!found.ok()) return found.status();
    if (*found != settings) {
      return ClientError(
          absl::StatusCode::kFailedPrecondition, "OTHER_EVALUATION",
          absl::StrCat(folder,
                       " holds an evaluation with other settings, see "
                       "settings.json there: ",
                       *found));
    }
  } else if (absl::Status written = WriteWholeFile(path, settings);
             !written.ok()) {
    return written;
  }
  return std::unique_ptr<ScoreStore>(new ScoreStore(folder));
}

std::string ScoreStore::PathOf(const Row& row) const {
  return absl::StrCat(folder_, "/items/", row.key, ".jsonl");
}

absl::StatusOr<ItemScores> ScoreStore::Load(const Row& row) const {
  ItemScores scores;
  if (folder_.empty() || !std::filesystem::exists(PathOf(row))) return scores;
  const absl::StatusOr<std::string> lines = ReadWholeFile(PathOf(row));
  if (!lines.ok()) return lines.status();
  for (absl::string_view line : absl::StrSplit(*lines, '\n')) {
    const Json json = Json::parse(line.begin(), line.end(), nullptr,
                                  /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("item") ||
        !json["item"].is_number_unsigned() || !json.contains("scores") ||
        !json["scores"].is_array()) {
      continue;
    }
    std::vector<double> values;
    for (const Json& value : json["scores"]) {
      if (value.is_number()) values.push_back(value.get<double>());
    }
    scores[json["item"].get<size_t>()] = std::move(values);
  }
  return scores;
}

absl::Status ScoreStore::Add(const Row& row, size_t item,
                             const std::vector<double>& scores) {
  if (folder_.empty()) return absl::OkStatus();
  const std::string line = Json{{"item", item}, {"scores", scores}}.dump();
  const std::lock_guard lock(mutex_);
  std::ofstream& file = files_[row.key];
  if (!file.is_open()) {
    file.open(PathOf(row), std::ios::app);
    // The last line may have been cut short.
    file << "\n";
  }
  file << line << "\n" << std::flush;
  if (!file) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write ", PathOf(row)));
  }
  return absl::OkStatus();
}

}  // namespace limpid::evaluate
