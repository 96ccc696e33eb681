// SPDX-License-Identifier: Apache-2.0
//
// Flags of limpid bench.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace limpid::cli {

struct BenchFlags {
  std::vector<std::string> models;  // empty: all that are ready and read text
  std::vector<int64_t> lengths = {8, 32, 128};
  std::string method;
  int clients = 4;
  double rate = 0;  // 0: closed loop
  std::string duration = "10s";
  int max_in_flight = 512;
  double max_residual = 1e-4;
  uint64_t seed = 1;
  bool json = false;
};

// Adds them to the command; `flags` must outlive the parsing.
void AddBenchFlags(CLI::App& command, BenchFlags& flags);

// What is wrong with them; empty if nothing is.
std::string BenchMistake(const BenchFlags& flags);

}  // namespace limpid::cli
