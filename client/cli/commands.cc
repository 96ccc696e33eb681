// SPDX-License-Identifier: Apache-2.0
#include "client/cli/commands.h"

#include "client/cli/bench_command.h"
#include "client/cli/compare_command.h"
#include "client/cli/evaluate_command.h"
#include "client/cli/explain_command.h"
#include "client/cli/model_commands.h"

namespace limpid::cli {

int RunCommand(Client& client, const CommandLine& line, Terminal& terminal) {
  switch (line.command) {
    case Command::kModels:
      return RunModels(client, line, terminal);
    case Command::kModel:
    case Command::kLoad:
    case Command::kUnload:
      return RunModel(client, line, terminal);
    case Command::kHealth:
      return RunHealth(client, line, terminal);
    case Command::kMethods:
      return RunMethods(client, line, terminal);
    case Command::kBench:
      return RunBench(client, line, terminal);
    case Command::kEvaluate:
      return RunEvaluate(client, line, terminal);
    case Command::kCompare:
      return RunCompare(client, line, terminal);
    case Command::kCompletion:
      break;  // answered while the command line is read
    case Command::kExplain:
      return line.explain.jsonl ? RunExplainLines(client, line, terminal)
                                : RunExplain(client, line, terminal);
  }
  return kExitUsage;
}

}  // namespace limpid::cli
