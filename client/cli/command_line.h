// SPDX-License-Identifier: Apache-2.0
//
// The command line as a plain struct.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "client/cli/bench_flags.h"
#include "client/cli/evaluate_flags.h"
#include "client/cli/explain_flags.h"
#include "client/client.h"

namespace limpid::cli {

// Exit statuses of the program.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;

enum class Command {
  kModels,
  kModel,
  kLoad,
  kUnload,
  kHealth,
  kMethods,
  kExplain,
  kCompare,
  kEvaluate,
  kBench,
  kCompletion
};

struct CommandLine {
  ClientOptions client;
  Command command = Command::kModels;
  std::string name;  // of a model, where the command takes one
  bool json = false;
  ExplainFlags explain;  // of compare, too
  EvaluateFlags evaluate;
  BenchFlags bench;
  std::string shell;  // of completion
};

// Instead of a command: text to print and the exit status.
struct ParseExit {
  int code = kExitOk;
  std::string text;  // to stdout if the code is 0, else to stderr
};

// Reads an environment variable; null if it is not set.
using GetEnv = std::function<const char*(const char*)>;

// `arguments` without the program's name. Pure but for `get_env`.
std::variant<CommandLine, ParseExit> ParseCommandLine(
    const std::vector<std::string>& arguments, const GetEnv& get_env);

}  // namespace limpid::cli
