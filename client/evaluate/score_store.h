// SPDX-License-Identifier: Apache-2.0
//
// Scores that an evaluation has already made, kept in a folder so that an
// interrupted run goes on where it was.
#pragma once

#include <cstddef>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/evaluate/rows.h"

namespace limpid::evaluate {

using ItemScores = std::map<size_t, std::vector<double>>;  // by item

// Thread-safe.
class ScoreStore {
 public:
  // Without a folder nothing is kept. `settings` says everything that scores
  // depend on; a folder that was made with others is refused
  // (FAILED_PRECONDITION, reason OTHER_EVALUATION).
  static absl::StatusOr<std::unique_ptr<ScoreStore>> Open(
      const std::string& folder, const std::string& settings);

  // What the folder holds of a row. A line that was cut short is left out.
  absl::StatusOr<ItemScores> Load(const Row& row) const;

  // Appends the scores of an item; they are in the file when it returns.
  absl::Status Add(const Row& row, size_t item,
                   const std::vector<double>& scores);

 private:
  explicit ScoreStore(std::string folder) : folder_(std::move(folder)) {}
  std::string PathOf(const Row& row) const;

  const std::string folder_;
  std::mutex mutex_;
  std::map<std::string, std::ofstream> files_;  // under mutex_
};

}  // namespace limpid::evaluate
