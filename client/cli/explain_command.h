// SPDX-License-Identifier: Apache-2.0
//
// limpid explain: one input, or one per line of a file.
#pragma once

#include "client/cli/command_line.h"
#include "client/cli/terminal.h"
#include "client/client.h"

namespace limpid::cli {

// Explains the input of the flags, prints and writes what was asked for, and
// returns the exit status.
int RunExplain(Client& client, const CommandLine& line, Terminal& terminal);

// Explains every line of --jsonl, --in-flight of them at a time, and prints one
// JSON object per line, in order: {"line": N, "explanation": ...} or
// {"line": N, "error": ...}. With --out, line N goes to DIR/00000N.json
// instead,
// {"line": N, "request": ..., "explanation": ...}, unless that file is there
// and holds the same request. 2 if a line could not be understood, else 1 if
// one failed. A cancelled call ends the run.
int RunExplainLines(Client& client, const CommandLine& line,
                    Terminal& terminal);

}  // namespace limpid::cli
