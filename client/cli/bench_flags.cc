// SPDX-License-Identifier: Apache-2.0
#include "client/cli/bench_flags.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "absl/strings/str_cat.h"
#include "client/cli/flag_values.h"

namespace limpid::cli {

void AddBenchFlags(CLI::App& command, BenchFlags& flags) {
  command
      .add_option("--model", flags.models,
                  "Models that are asked in turn (default: all that are ready "
                  "and read text)")
      ->type_name("NAME,...")
      ->delimiter(',');
  command
      .add_option("--lengths", flags.lengths,
                  "Lengths of inputs in tokens (default 8,32,128)")
      ->type_name("N,...")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  command
      .add_option("--method", flags.method,
                  "Attribution method (default raw-attention)")
      ->type_name("NAME");
  command
      .add_option("--clients", flags.clients,
                  "Connections; without --rate each sends its next request "
                  "when it has the reply (default 4)")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  command
      .add_option("--rate", flags.rate,
                  "Requests per second at random times, whatever the server "
                  "does")
      ->type_name("R")
      ->check(CLI::Range(0.001, 1e6));
  command
      .add_option("--duration", flags.duration,
                  "How long requests are sent (default 10s)")
      ->type_name("DURATION");
  command
      .add_option("--max-in-flight", flags.max_in_flight,
                  "With --rate: requests that are out at the same time "
                  "(default 512)")
      ->type_name("N")
      ->check(CLI::Range(1, 4096));
  command
      .add_option("--max-residual", flags.max_residual,
                  "Reconstruction error from which on a reply is wrong "
                  "(default 1e-4)")
      ->type_name("X");
  command.add_option("--seed", flags.seed, "Of the requests (default 1)")
      ->type_name("N");
  command.add_flag("--json", flags.json, "Print JSON");
}

std::string BenchMistake(const BenchFlags& flags) {
  const auto duration = ParseDeadline(flags.duration);
  if (!duration.ok()) {
    return absl::StrCat("--duration: ", duration.status().message());
  }
  return "";
}

}  // namespace limpid::cli
