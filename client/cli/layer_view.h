// SPDX-License-Identifier: Apache-2.0
//
// Attention of all layers at a glance: a line per layer, a column per token.
#pragma once

#include "client/cli/terminal.h"
#include "client/explanation.h"

namespace limpid::cli {

// Prints the explained position's row of every layer: coloured cells with the
// tokens' beginnings, each layer in its own range; without colours a table of
// numbers. With more tokens than columns a cell is the entry that stands out
// most of several. `matrices`: whether the reply holds matrices, not rows. A
// line says so if the reply has no attention.
void PrintLayers(Terminal& terminal, const Explanation& explanation,
                 bool matrices);

}  // namespace limpid::cli
