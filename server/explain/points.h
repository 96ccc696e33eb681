// SPDX-License-Identifier: Apache-2.0
//
// The points of a request: where and what is explained.
#pragma once

#include <vector>

#include "server/explain/read_input.h"
#include "server/explain/request.h"

namespace limpid {

// A point whose position is known, and whose target is anything but kNext.
struct PlannedPoint {
  int64_t position = 0;
  Target target;
};

// What is wrong becomes violations at "points[i]".
std::vector<PlannedPoint> ReadPoints(const std::vector<Point>& points,
                                     const ReadResult& input,
                                     const ModelInfo& info,
                                     Violations& violations);

}  // namespace limpid
