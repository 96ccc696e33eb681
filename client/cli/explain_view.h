// SPDX-License-Identifier: Apache-2.0
//
// An explanation as text for people: tokens coloured by attribution on a
// terminal, a plain table elsewhere.
#pragma once

#include "client/cli/terminal.h"
#include "client/explanation.h"

namespace limpid::cli {

// Prints the whole explanation, or for validate_only its cost.
void PrintExplanation(Terminal& terminal, const Explanation& explanation);
void PrintCost(Terminal& terminal, const Explanation& explanation);

// Parts of a stream as they come; each ends with a line feed.
void PrintHeaderPart(Terminal& terminal, const v1::ExplanationHeader& header);
void PrintTensorPart(Terminal& terminal, const v1::Tensor& tensor);

}  // namespace limpid::cli
