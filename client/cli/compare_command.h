// SPDX-License-Identifier: Apache-2.0
//
// limpid compare: models or methods side by side on one input.
#pragma once

#include "client/cli/command_line.h"
#include "client/cli/terminal.h"
#include "client/client.h"

namespace limpid::cli {

// Explains the input by every named model with every named method, prints a
// table and how far they agree, writes what was asked for, and returns the exit
// status. One explanation that fails ends it.
int RunCompare(Client& client, const CommandLine& line, Terminal& terminal);

}  // namespace limpid::cli
