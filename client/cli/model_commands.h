// SPDX-License-Identifier: Apache-2.0
//
// The commands about models, methods and health. Each prints and returns the
// exit status.
#pragma once

#include "client/cli/command_line.h"
#include "client/cli/terminal.h"
#include "client/client.h"

namespace limpid::cli {

int RunModels(Client& client, const CommandLine& line, Terminal& terminal);
// model, load or unload: they print the model as it is then.
int RunModel(Client& client, const CommandLine& line, Terminal& terminal);
int RunMethods(Client& client, const CommandLine& line, Terminal& terminal);
// 0 only if the answer is SERVING.
int RunHealth(Client& client, const CommandLine& line, Terminal& terminal);

}  // namespace limpid::cli
