// SPDX-License-Identifier: Apache-2.0
//
// An explanation as text for people: tokens coloured by attribution on a
// terminal, a plain table elsewhere.
#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <string>

#include "client/cli/terminal.h"
#include "client/explanation.h"

namespace limpid::cli {

struct ViewOptions {
  bool layers = false;    // the attention of every layer, too
  bool matrices = false;  // whether the reply holds matrices, not rows
};

// Prints the whole explanation, or for validate_only its cost.
void PrintExplanation(Terminal& terminal, const Explanation& explanation,
                      const ViewOptions& options = {});
void PrintCost(Terminal& terminal, const Explanation& explanation);

// A completeness error in words: the number, and a warning where it is more
// than a twentieth of what the attributions amount to. Without attributions the
// number alone.
std::string CompletenessText(
    double error,
    const google::protobuf::RepeatedPtrField<v1::TokenAttribution>&
        attributions);

// A precision in words, with its error; empty for float32, which has none.
std::string PrecisionText(const v1::Arithmetic& arithmetic);

// Prints in two or three lines what is said of an explanation beside others.
void PrintSide(Terminal& terminal, const Explanation& explanation);

// Parts of a stream as they come; each ends with a line feed.
void PrintHeaderPart(Terminal& terminal, const v1::ExplanationHeader& header);
void PrintTensorPart(Terminal& terminal, const v1::Tensor& tensor);

}  // namespace limpid::cli
