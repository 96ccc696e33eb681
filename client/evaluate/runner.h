// SPDX-License-Identifier: Apache-2.0
//
// Runs a protocol on a model: every row on every item, many at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/evaluate/protocol.h"
#include "client/evaluate/rows.h"
#include "client/evaluate/score_store.h"
#include "client/evaluate/statistics.h"
#include "client/explanation.h"
#include "limpid/v1/model.pb.h"

namespace limpid::evaluate {

// Asks a server; called from many threads.
using Explain =
    std::function<absl::StatusOr<Explanation>(const v1::ExplainRequest&)>;
// Told of progress, by one thread at a time.
using OnProgress = std::function<void(int64_t done, int64_t total)>;

struct RunOptions {
  int parallel = 8;      // requests in flight
  uint64_t seed = 0;     // of everything random
  int resamples = 2000;  // of the bootstrap
  // Options, given to the methods that take them.
  v1::MethodOptions method_options;
};

// A row with its figures, in the order of the protocol's.
struct RowResult {
  Row row;
  std::vector<Interval> figures;
  std::vector<std::vector<double>> curves;  // in the order of the protocol's
};

// What form full adds to form state.
struct FormDifference {
  std::string method;
  std::vector<Interval> figures;  // full minus state, on the same items
};

struct Results {
  std::vector<RowResult> rows;  // the control is the last one
  std::vector<FormDifference> differences;
  std::vector<SkippedRow> skipped;
  size_t best = 0;  // index of the best row by the first figure, random aside
};

// Items that the store holds are not computed again. Ends at the first error,
// with that error; INVALID_ARGUMENT if the model offers no method.
absl::StatusOr<Results> RunProtocol(const Protocol& protocol,
                                    const v1::Model& model,
                                    const std::vector<v1::Method>& methods,
                                    const Explain& explain,
                                    const RunOptions& options,
                                    ScoreStore& store,
                                    const OnProgress& on_progress);

}  // namespace limpid::evaluate
