// SPDX-License-Identifier: Apache-2.0
//
// What an evaluation protocol is: items, and how an attribution of an item is
// judged. Nothing here talks to a server; what must be asked goes through a
// function.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/evaluate/statistics.h"
#include "limpid/v1/explanation.pb.h"

namespace limpid::evaluate {

// What the model makes of an item as it is.
struct Reading {
  std::vector<v1::Token> tokens;            // empty for pictures
  int64_t grid_rows = 0, grid_columns = 0;  // of patches; 0 for text
  std::vector<float> logits;                // [V] at the explained position

  // Values of an attribution.
  size_t size() const {
    return tokens.empty() ? static_cast<size_t>(grid_rows * grid_columns)
                          : tokens.size();
  }
};

// Logits [V] of a changed input at the explained position.
using AskLogits =
    std::function<absl::StatusOr<std::vector<float>>(const v1::Input&)>;

// A curve that is the mean of consecutive scores of the items.
struct Curve {
  std::string title;  // of the y axis
  std::string x_title;
  size_t first_score = 0;
  std::vector<double> x;
  double factor = 1;  // from the mean score to what is drawn
};

// Immutable; all functions may be called from many threads.
class Protocol {
 public:
  virtual ~Protocol() = default;

  // Word of the command line.
  virtual std::string name() const = 0;
  // What text around the table must know: data, sizes, options, one sentence.
  virtual std::string description() const = 0;
  // Columns of the table, the most important first: by it the best row is
  // chosen.
  virtual std::vector<Figure> figures() const = 0;
  virtual std::vector<Curve> curves() const { return {}; }

  virtual size_t num_items() const = 0;
  virtual absl::StatusOr<v1::Input> input(size_t item) const = 0;
  // What methods with a target explain.
  virtual v1::Target target(size_t item, const Reading& reading) const = 0;

  // Scores of an attribution, one value per token or patch, all finite; always
  // equally many. `seed` is for ties. Errors are those of `ask`, or
  // INVALID_ARGUMENT for a model that does not fit the protocol.
  virtual absl::StatusOr<std::vector<double>> Judge(
      size_t item, const Reading& reading, std::span<const float> attribution,
      uint64_t seed, const AskLogits& ask) const = 0;
};

// Data or a model that a protocol can't use.
absl::Status DataError(const std::string& message);

}  // namespace limpid::evaluate
