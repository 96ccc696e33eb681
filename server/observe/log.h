// SPDX-License-Identifier: Apache-2.0
//
// Log lines: one JSON object (or readable text) per line, never an input's
// text. Values are escaped, whatever bytes they hold.
#pragma once

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace limpid {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kJson, kText };

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kJson;
};

// Named values of a line, in the order in which they are written.
using LogFields =
    std::vector<std::pair<const char*,
                          std::variant<std::string, int64_t, double>>>;

// A request that has ended.
struct RequestLine {
  std::string request_id;
  const char* rpc = "";  // for example "Explain"
  std::string model;     // empty: none, or not one of ours
  std::string method;    // attribution method, as model
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string reason;  // of an error
  int64_t num_tokens = 0;
  absl::Duration total, queue, compute, serialize;
  int64_t reply_bytes = 0;
};

// Thread-safe.
class Log {
 public:
  // To standard error.
  explicit Log(const LogOptions& options);
  // To `out`, which outlives the log.
  Log(const LogOptions& options, std::ostream& out);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  void Write(LogLevel level, absl::string_view message,
             const LogFields& fields = {});
  // One line per request: a warning if it failed by our fault (INTERNAL,
  // UNKNOWN, DATA_LOSS), else information.
  void Request(const RequestLine& line);
  void Flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace limpid
