// SPDX-License-Identifier: Apache-2.0
//
// The units over which a request wants attributions summed.
#pragma once

#include <vector>

#include "server/explain/read_input.h"
#include "server/explain/result.h"

namespace limpid {

// Words, spans of tokens or regions of patches; empty for the unit token. A
// word is a run of bytes without whitespace. A token belongs to the word of its
// first byte that is no whitespace; one that is nothing but whitespace to the
// word that follows, at the end of the text to the one before. What is wrong
// becomes violations at "aggregation".
std::vector<ResultUnit> ReadUnits(const AggregationRequest& request,
                                  const Input& given, const ReadResult& input,
                                  const ModelInfo& info,
                                  Violations& violations);

}  // namespace limpid
