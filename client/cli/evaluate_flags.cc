// SPDX-License-Identifier: Apache-2.0
#include "client/cli/evaluate_flags.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "absl/strings/str_cat.h"
#include "client/cli/flag_values.h"

namespace limpid::cli {
namespace {

void AddData(CLI::App& command, EvaluateFlags& flags) {
  CLI::App& group = *command.add_option_group("Data");
  group
      .add_option("--data", flags.data,
                  "Texts: a file of {\"text\": ..., \"label\": TOKEN} lines. "
                  "Pictures: a folder of NAME.png with NAME.mask.png for "
                  "segmentation, or gtsegs_ijcv.mat. grounding makes its own")
      ->type_name("PATH");
  group
      .add_option("--words", flags.words,
                  "lexicon: lines of a word, a tab and its rating")
      ->type_name("FILE");
  group
      .add_option("--items", flags.items,
                  "Use the first N (default all; grounding 500)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}));
  group
      .add_option(
          "--pairs",
          [&flags](const CLI::results_t& values) {
            return ParsePairs(values.front(), flags.least_pairs,
                              flags.most_pairs);
          },
          "grounding: pairs in a sequence (default 4-8)")
      ->type_name("MIN-MAX");
  group
      .add_option("--picture-size", flags.picture_size,
                  "Side of the model's input in pixels (default 64)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{8}, int64_t{4096}));
}

void AddModel(CLI::App& command, EvaluateFlags& flags) {
  CLI::App& group = *command.add_option_group("Model");
  group.add_option("--model", flags.model, "Model")
      ->type_name("NAME")
      ->required();
  group
      .add_option("--classes", flags.classes,
                  "Tokens that are the classes of a language model: 1,2 for "
                  "the embedded sentiment models (default the whole "
                  "vocabulary). Two classes: their difference is explained")
      ->type_name("IDS")
      ->delimiter(',')
      ->allow_extra_args(false);
  group
      .add_option("--replacement", flags.replacement,
                  "Token that stands for a removed one (default 0, "
                  "<|endoftext|> of the embedded models)")
      ->type_name("ID");
  group
      .add_option("--option", flags.options,
                  absl::StrCat("Option for the methods that take it, may be "
                               "repeated: ",
                               MethodOptionNames()))
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
}

void AddRun(CLI::App& command, EvaluateFlags& flags) {
  CLI::App& group = *command.add_option_group("Run");
  group
      .add_option("--parallel", flags.parallel,
                  "Requests in flight (default 8)")
      ->type_name("N")
      ->check(CLI::Range(1, 256));
  group.add_option("--seed", flags.seed, "Of everything random (default 0)")
      ->type_name("N");
  group
      .add_option("--resamples", flags.resamples,
                  "Bootstrap samples behind the 95 % intervals (default 2000)")
      ->type_name("N")
      ->check(CLI::Range(100, 100'000));
  group
      .add_option("--out", flags.out,
                  "Write results.json, table.md and plots to a folder, and "
                  "finished items, so that the same command goes on after an "
                  "interruption")
      ->type_name("DIR");
  group.add_flag("--json", flags.json, "Print JSON, not a table");
}

}  // namespace

bool ParsePairs(const std::string& text, int& least, int& most) {
  const size_t dash = text.find('-');
  if (dash == std::string::npos) return false;
  const auto low = ParseInt32(text.substr(0, dash));
  const auto high = ParseInt32(text.substr(dash + 1));
  if (!low.ok() || !high.ok() || *low < 1 || *high > 10 || *low > *high) {
    return false;
  }
  least = *low;
  most = *high;
  return true;
}

void AddEvaluateFlags(CLI::App& command, EvaluateFlags& flags) {
  command
      .add_option("protocol", flags.protocol,
                  "perturbation, activation, pruning, segmentation, grounding "
                  "or lexicon")
      ->type_name("PROTOCOL")
      ->required()
      ->check(CLI::IsMember({"perturbation", "activation", "pruning",
                             "segmentation", "grounding", "lexicon"}));
  AddModel(command, flags);
  AddData(command, flags);
  AddRun(command, flags);
}

}  // namespace limpid::cli
