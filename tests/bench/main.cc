// SPDX-License-Identifier: Apache-2.0
//
// limpid_bench: times networks of published shapes with random weights, as JSON
// lines and as a table.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <regex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/bench/cases.h"
#include "tests/bench/measure.h"

namespace limpid::bench {
namespace {

struct Options {
  std::string device = "cpu";
  std::string filter = ".";
  std::string out;
  int repeats = 10;
  int threads = 0;
  bool list = false;
  std::string peers;
  std::string service;
};

std::string Milliseconds(const std::string& name, const Times& times) {
  return absl::StrFormat("\"%s\": %.4f, \"%s_least\": %.4f, \"%s_most\": %.4f",
                         name, times.median, name, times.least, name,
                         times.most);
}

struct Result {
  Times times;
  double added = 0;  // milliseconds, without the baseline's
  double roofline_share = 0;
  std::string line;  // JSON
};

// Throws what goes wrong.
Result RunCase(const Case& one, at::Device device, int repeats,
               const Roofline& roofline, const std::string& where) {
  const absl::StatusOr<Prepared> prepared = one.prepare(device);
  if (!prepared.ok()) throw std::runtime_error(prepared.status().ToString());
  Result out;
  out.line = absl::StrCat("{\"op\": \"", one.name, "\", ", where, ", ");
  Times base;
  if (prepared->baseline) {
    base = Measure(device, repeats, prepared->baseline);
    absl::StrAppend(&out.line, Milliseconds("baseline_ms", base), ", ");
  }
  out.times = Measure(device, repeats, prepared->work);
  out.added = out.times.median - base.median;
  const double arithmetic = prepared->flops / roofline.flops_per_second;
  const double traffic = prepared->bytes / roofline.bytes_per_second;
  out.roofline_share = std::max(arithmetic, traffic) * 1e3 / out.added;
  absl::StrAppend(&out.line, Milliseconds("ms", out.times),
                  absl::StrFormat(", \"added_ms\": %.4f, \"flops\": %.4g, "
                                  "\"bytes\": %.4g, \"roofline_share\": %.3f",
                                  out.added, prepared->flops, prepared->bytes,
                                  out.roofline_share));
  if (device.is_cuda()) {
    absl::StrAppend(
        &out.line,
        absl::StrFormat(", \"tensor_share\": %.3f, \"peak_mib\": %.1f",
                        prepared->flops / roofline.tensor_flops_per_second *
                            1e3 / out.added,
                        PeakBytes(device, prepared->work) / 1048576.0));
  }
  if (prepared->to_host) {
    const Times all = Measure(device, repeats, prepared->to_host);
    absl::StrAppend(&out.line, ", ", Milliseconds("with_transfer_ms", all),
                    absl::StrFormat(", \"transfer_ms\": %.4f",
                                    all.median - out.times.median));
  }
  if (prepared->extra) absl::StrAppend(&out.line, ", ", prepared->extra());
  out.line += "}";
  return out;
}

// Runs a program that adds lines of its own to --out.
bool RunProgram(const std::string& program, const std::string& arguments,
                const Options& options) {
  std::printf("\n");
  std::fflush(stdout);
  const std::string command =
      absl::StrCat(program, " ", arguments, " --device ", options.device, " '",
                   options.out, "'");
  return std::system(command.c_str()) == 0;
}

int RunCases(const Options& options) {
  // Float32 is float32, as in the server.
  at::globalContext().setAllowTF32CuBLAS(false);
  if (options.threads > 0) at::set_num_threads(options.threads);
  const at::Device device(options.device == "cuda" ? "cuda:0" : options.device);
  const std::regex filter(options.filter);
  const std::string where = DescribeDevice(device);
  const Roofline roofline = ProbeRoofline(device);
  std::ofstream file;
  if (!options.out.empty()) {
    file.open(options.out);
    if (!file) {
      std::fprintf(stderr, "limpid_bench: can't write %s\n",
                   options.out.c_str());
      return 1;
    }
  }
  const auto emit = [&](const std::string& line) {
    if (file.is_open()) file << line << "\n" << std::flush;
  };
  emit(absl::StrFormat(
      "{\"op\": \"roofline\", %s, \"copy_gb_per_s\": %.1f, "
      "\"float32_tflops\": %.2f, \"float16_tflops\": %.1f}",
      where, roofline.bytes_per_second / 1e9, roofline.flops_per_second / 1e12,
      roofline.tensor_flops_per_second / 1e12));
  std::printf(
      "%s\ncopy %.0f GB/s, float32 products %.2f TFLOP/s\n\n"
      "%-36s %10s %10s %10s %9s\n",
      where.c_str(), roofline.bytes_per_second / 1e9,
      roofline.flops_per_second / 1e12, "", "median ms", "least", "added",
      "roofline");
  int failed = 0;
  for (const Case& one : Cases()) {
    if (!std::regex_search(one.name, filter)) continue;
    if (device.is_cpu() && !one.on_cpu) continue;
    if (options.list) {
      std::printf("%s\n", one.name.c_str());
      continue;
    }
    try {
      const Result result =
          RunCase(one, device, options.repeats, roofline, where);
      emit(result.line);
      std::printf("%-36s %10.3f %10.3f %10.3f %8.0f%%\n", one.name.c_str(),
                  result.times.median, result.times.least, result.added,
                  100 * result.roofline_share);
      std::fflush(stdout);
    } catch (const std::exception& error) {
      std::printf("%-36s failed: %.200s\n", one.name.c_str(), error.what());
      ++failed;
    }
  }
  file.close();
  if (!options.peers.empty() &&
      !RunProgram(options.peers,
                  absl::StrCat("--threads ", at::get_num_threads(),
                               " --repeats ", options.repeats),
                  options)) {
    ++failed;
  }
  if (!options.service.empty() && !RunProgram(options.service, "", options)) {
    ++failed;
  }
  return failed == 0 ? 0 : 1;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Times networks of published shapes with random weights. \"added\" is "
      "what attention takes beside the forward pass; \"roofline\" is the time "
      "that the operations would take at the rate of a float32 product of "
      "matrices, measured in the same run, as a share of it.");
  app.add_option("--device", options.device, "cpu, cuda or cuda:N");
  app.add_option("--filter", options.filter, "regular expression of names");
  CLI::Option* const out =
      app.add_option("--out", options.out, "file for JSON lines");
  app.add_option("--repeats", options.repeats, "timed runs of each")
      ->check(CLI::Range(1, 1000));
  app.add_option("--threads", options.threads, "CPU threads; default: cores");
  app.add_flag("--list", options.list, "only print the names");
  app.add_option("--peers", options.peers,
                 "then time what others would use for the same work by this "
                 "program, which adds its lines to --out; default: "
                 "scripts/peers")
      ->expected(0, 1)
      ->default_str("scripts/peers")
      ->needs(out);
  app.add_option("--service", options.service,
                 "then ask a server on the same device, with 1 to 64 clients, "
                 "by this program, which adds its lines to --out; default: "
                 "scripts/bench-service")
      ->expected(0, 1)
      ->default_str("scripts/bench-service")
      ->needs(out);
  CLI11_PARSE(app, argc, argv);
  return RunCases(options);
}

}  // namespace
}  // namespace limpid::bench

int main(int argc, char** argv) { return limpid::bench::Main(argc, argv); }
