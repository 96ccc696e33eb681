// SPDX-License-Identifier: Apache-2.0
//
// Flags of limpid explain and limpid compare.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace limpid::cli {

// Flags of explain and compare, as they were written.
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
  bool layer_view = false;
  int in_flight = 8;  // of --jsonl
  std::optional<std::string> out, save, png, html, svg, opacity;
};

// Adds them to the command; `flags` and `json` must outlive the parsing.
void AddExplainFlags(CLI::App& command, ExplainFlags& flags, bool& json);
// compare takes lists of models and methods, and fewer outputs.
void AddCompareFlags(CLI::App& command, ExplainFlags& flags, bool& json);

// What is wrong with them; empty if nothing is.
std::string ExplainMistake(const ExplainFlags& flags);

// A flag with one value that is kept byte for byte: empty values, values that
// look like flags and values in brackets are as good as any other.
CLI::Option* AddValue(CLI::App& app, const std::string& name,
                      const std::string& type,
                      std::optional<std::string>& value,
                      const std::string& help);

}  // namespace limpid::cli
