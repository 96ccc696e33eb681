// SPDX-License-Identifier: Apache-2.0
//
// The commands of the program.
#pragma once

#include "client/cli/command_line.h"
#include "client/cli/terminal.h"
#include "client/client.h"

namespace limpid::cli {

// Runs the command and returns the exit status. Whether the run was interrupted
// is the caller's to know.
int RunCommand(Client& client, const CommandLine& line, Terminal& terminal);

}  // namespace limpid::cli
