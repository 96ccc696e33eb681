// SPDX-License-Identifier: Apache-2.0
//
// A cheap look at JSON text before it is parsed into a tree, so that a hostile
// file cannot cost memory or stack out of proportion to its size.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace limpid {

// Whether a parser may be given this text: brackets are nested at most
// `max_depth` deep, there are at most `max_values` values, and no NUL byte,
// which some parsers take for the end of the text. Says nothing about whether
// the text is JSON. One pass, no memory.
bool IsTameJson(absl::string_view text, int max_depth, int64_t max_values);

}  // namespace limpid
