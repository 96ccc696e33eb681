// SPDX-License-Identifier: Apache-2.0
//
// limpid evaluate: reads the data, runs the protocol through the client, and
// writes the results.
#pragma once

#include "client/cli/command_line.h"
#include "client/cli/terminal.h"
#include "client/client.h"

namespace limpid::cli {

// Prints the table (or JSON) and returns the exit status.
int RunEvaluate(Client& client, const CommandLine& line, Terminal& terminal);

}  // namespace limpid::cli
