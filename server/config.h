// SPDX-License-Identifier: Apache-2.0
//
// Settings of the server: flags over a configuration file over defaults,
// checked as a whole.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/status.h"
#include "server/rpc/address_range.h"
#include "server/rpc/tls.h"
#include "server/schedule/batch_policy.h"

namespace limpid {

// Valid settings. Fields as in limpid.config.v1.ServerConfig.
struct Settings {
  std::string model_repository;
  std::string listen = "127.0.0.1:0";
  std::optional<std::string> metrics = "127.0.0.1:0";  // none: off
  std::string device = "auto";
  bool allow_plaintext = false;
  std::optional<std::string> health;
  std::vector<std::string> startup_models;  // empty: all
  bool reflection = true;
  absl::Duration drain = absl::Seconds(10);
  absl::Duration serving_window = absl::Milliseconds(500);

  std::optional<TlsFiles> tls;
  std::string token_file;  // empty: no tokens are asked for
  bool gzip = false;
  int64_t max_connections = 4096;
  absl::Duration max_idle = absl::Minutes(5);
  absl::Duration max_age = absl::InfiniteDuration();
  absl::Duration max_age_grace = absl::Minutes(10);
  absl::Duration keepalive = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(10);
  int64_t max_resets_per_second = 1000;  // 0: no limit
  std::vector<AddressRange> trusted_proxies;

  int64_t max_tokens = 4096;
  int64_t max_request_bytes = int64_t{16} << 20;
  int64_t max_unary_reply_bytes = int64_t{64} << 20;
  int64_t max_request_memory_bytes = int64_t{8} << 30;
  int64_t max_queue_size = 256;
  int64_t max_client_queue_size = 128;
  absl::Duration max_queue_time = absl::Seconds(600);
  int64_t max_resident_bytes = std::numeric_limits<int64_t>::max();
  absl::Duration repository_poll = absl::InfiniteDuration();  // never
  int64_t max_running_memory_bytes = int64_t{16} << 30;
  absl::Duration max_request_time = absl::Seconds(600);

  std::optional<int64_t> workers;  // none: see NumWorkers
  int64_t threads_per_worker = 1;
  int64_t copies = 0;  // of each model; 0: as many as demand asks for

  // Of batches; none: see BatchingOn.
  std::optional<int64_t> max_batch_size;
  std::optional<int64_t> max_batch_tokens;
  std::optional<absl::Duration> max_batch_wait;
  double max_batch_seconds = BatchLimits().max_seconds;

  std::string log_format = "json";
  std::string log_level = "info";
  absl::Duration slow_request = absl::Seconds(10);
};

// Workers of each of the devices, named as the engine does: as set, else as
// many as there are cores for on the CPU, and half as many on a GPU, 8 at most.
int64_t NumWorkers(const Settings& settings,
                   const std::vector<std::string>& devices);

// Limits of batches on devices: as set, else no batches on the CPU, where they
// pay for short inputs of a server that is busy all the time only, and on a GPU
// up to 16 requests that wait 2 ms for each other.
BatchLimits BatchingOn(const Settings& settings,
                       const std::vector<std::string>& devices);

// What the command line asks for.
struct CommandLine {
  enum class Action { kServe, kPrintConfig, kPrint };
  Action action = Action::kServe;
  // kPrint: help or version. kPrintConfig: the effective configuration as JSON,
  // which can be read again with --config.
  std::string text;
  Settings settings;
};

// Reads flags, without the program's name, and the file that --config names.
// INVALID_ARGUMENT names every mistake at once: unknown flags and fields, wrong
// types, values out of range, settings that contradict each other. A mistake of
// a flag has the flag as its field, one of the file the field's path.
absl::StatusOr<CommandLine> ParseCommandLine(
    const std::vector<std::string>& arguments);

}  // namespace limpid
