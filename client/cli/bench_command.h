// SPDX-License-Identifier: Apache-2.0
//
// limpid bench: loads a server and checks every reply.
#pragma once

#include "client/cli/command_line.h"
#include "client/cli/terminal.h"
#include "client/client.h"

namespace limpid::cli {

// Prints the figures; the exit status says whether every reply was right.
int RunBench(Client& client, const CommandLine& line, Terminal& terminal);

}  // namespace limpid::cli
