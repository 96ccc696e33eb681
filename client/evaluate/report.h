// SPDX-License-Identifier: Apache-2.0
//
// Results as JSON, as a Markdown table and as plots. Pure.
#pragma once

#include <string>

#include "client/evaluate/protocol.h"
#include "client/evaluate/runner.h"

namespace limpid::evaluate {

// What a report says of where the results come from.
struct ReportContext {
  std::string model, model_digest, architecture;
  uint64_t seed = 0;
  int resamples = 0;
};

// {"protocol", "model", ..., "rows": [{"row", "method", "form", "figures":
// {KEY: {"value", "low", "high"}}, "curves": [...]}], "full_minus_state":
// [{"method", "figures"}], "skipped": [...], "best", "control_like_random"}
std::string ResultsJson(const Protocol& protocol, const Results& results,
                        const ReportContext& context);

// The table, the differences between the forms, what is missing and how the
// control came out.
std::string ResultsMarkdown(const Protocol& protocol, const Results& results,
                            const ReportContext& context);

// Intervals of the first figure.
std::string IntervalsSvg(const Protocol& protocol, const Results& results,
                         const ReportContext& context);

// The curves; empty for a protocol without.
std::string CurvesSvg(const Protocol& protocol, const Results& results);

}  // namespace limpid::evaluate
