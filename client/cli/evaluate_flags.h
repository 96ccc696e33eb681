// SPDX-License-Identifier: Apache-2.0
//
// Flags of `limpid evaluate`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace limpid::cli {

struct EvaluateFlags {
  std::string protocol, model;
  std::string data, words;  // paths; empty: not given
  std::vector<int64_t> classes;
  int64_t replacement = 0;
  int64_t picture_size = 64;
  int64_t items = 0;  // 0: all that there are
  int least_pairs = 4, most_pairs = 8;
  int parallel = 8;
  uint64_t seed = 0;
  int resamples = 2000;
  std::vector<std::string> options;  // NAME=VALUE
  std::string out;
  bool json = false;
};

// MIN-MAX with 1 <= MIN <= MAX <= 10; false for anything else.
bool ParsePairs(const std::string& text, int& least, int& most);

// Adds them to the command; `flags` must outlive the parsing.
void AddEvaluateFlags(CLI::App& command, EvaluateFlags& flags);

}  // namespace limpid::cli
