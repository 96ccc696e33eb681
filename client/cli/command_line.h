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
  kEvaluate,
  kBench
};

// Flags of explain, as they were written.
struct ExplainFlags {
  std::string model;
  // Exactly one is set.
  std::optional<std::string> text, text_file, tokens, image, pixels, jsonl;
  std::optional<std::string> method, target, position;
  std::optional<std::string> attention, channels, form, layers, include_skip;
  std::optional<std::string> aggregate, top_k, precision;
  std::optional<std::string> channel_list, downsample, attention_top_k, dtype;
  std::vector<std::string> options;  // NAME=VALUE
  bool head_form = false, faithfulness = false, logits = false;
  bool debug_tensors = false, validate_only = false, stream = false;
  std::optional<std::string> out, save, png, html;
};

struct CommandLine {
  ClientOptions client;
  Command command = Command::kModels;
  std::string name;  // of a model, where the command takes one
  bool json = false;
  ExplainFlags explain;
  EvaluateFlags evaluate;
  BenchFlags bench;
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
