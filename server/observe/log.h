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

// A named value of a line: text or a number.
struct LogField {
  enum class Kind { kText, kInteger, kReal };
  LogField(const char* name, std::string text)
      : name(name), kind(Kind::kText), text(std::move(text)) {}
  LogField(const char* name, int64_t integer)
      : name(name), kind(Kind::kInteger), integer(integer) {}
  LogField(const char* name, double real)
      : name(name), kind(Kind::kReal), real(real) {}

  const char* name;
  Kind kind;
  std::string text;
  int64_t integer = 0;
  double real = 0;
};
// In the order in which they are written.
using LogFields = std::vector<LogField>;

// A request that has ended.
struct RequestLine {
  std::string request_id;
  const char* rpc = "";  // for example "Explain"
  std::string model;     // empty: none, or not one of ours
  std::string method;    // attribution method, as model
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string reason;  // of an error
  std::string error;   // what went wrong, where it is our own fault
  int64_t num_tokens = 0;
  std::string caller;  // name of the token; empty: none was needed
  std::string trace_id, span_id, parent_id;  // W3C trace context
  // Stages: waiting for a worker, planning, computing, packing, waiting for a
  // stream's reader.
  absl::Duration total, queue, plan, compute, serialize, send;
  int64_t reply_bytes = 0;
  bool slow = false;  // longer than what is configured as slow
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
  // One line per request: a warning if it was slow or failed by our fault
  // (INTERNAL, UNKNOWN, DATA_LOSS), else information.
  void Request(const RequestLine& line);
  void Flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace limpid
