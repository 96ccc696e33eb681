// SPDX-License-Identifier: Apache-2.0
#include "server/observe/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace limpid {
namespace {

using Json = nlohmann::json;

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      break;
  }
  return spdlog::level::err;
}

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      break;
  }
  return "error";
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool IsPlain(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isprint(static_cast<unsigned char>(c)) && c != '"' &&
           c != '\\';
  });
}

// A value as JSON. Lines are written while callers wait for their replies: what
// needs no escape is copied.
void AppendValue(const LogField& field, std::string& line) {
  switch (field.kind) {
    case LogField::Kind::kText:
      if (IsPlain(field.text)) {
        return absl::StrAppend(&line, "\"", field.text, "\"");
      }
      return absl::StrAppend(&line, Dump(field.text));
    case LogField::Kind::kInteger:
      return absl::StrAppend(&line, field.integer);
    case LogField::Kind::kReal:
      break;
  }
  absl::StrAppend(&line, Dump(field.real));
}

std::string AsJson(const std::string& time, LogLevel level,
                   absl::string_view message, const LogFields& fields) {
  std::string line = "{";
  const auto add = [&line](const LogField& field) {
    absl::StrAppend(&line, line.size() > 1 ? "," : "", "\"", field.name, "\":");
    AppendValue(field, line);
  };
  add({"time", time});
  add({"level", LevelName(level)});
  add({"message", std::string(message)});
  for (const LogField& field : fields) add(field);
  return line + "}";
}

std::string AsText(const std::string& time, LogLevel level,
                   absl::string_view message, const LogFields& fields) {
  std::string line = absl::StrCat(time, " ", LevelName(level), " ",
                                  absl::Utf8SafeCEscape(message));
  for (const LogField& field : fields) {
    absl::StrAppend(&line, " ", field.name, "=");
    AppendValue(field, line);
  }
  return line;
}

// Milliseconds with three digits behind the point.
double Milliseconds(absl::Duration duration) {
  return static_cast<double>(absl::ToInt64Microseconds(duration)) / 1000;
}

bool OurFault(absl::StatusCode code) {
  return code == absl::StatusCode::kInternal ||
         code == absl::StatusCode::kUnknown ||
         code == absl::StatusCode::kDataLoss;
}

}  // namespace

struct Log::Impl {
  Impl(const LogOptions& options, spdlog::sink_ptr sink)
      : format(options.format), logger("limpid", std::move(sink)) {
    logger.set_pattern("%v");
    logger.set_level(ToSpdlog(options.level));
    logger.flush_on(spdlog::level::trace);
  }

  const LogFormat format;
  spdlog::logger logger;
};

Log::Log(const LogOptions& options)
    : impl_(std::make_unique<Impl>(
          options, std::make_shared<spdlog::sinks::stderr_sink_mt>())) {}

Log::Log(const LogOptions& options, std::ostream& out)
    : impl_(std::make_unique<Impl>(
          options, std::make_shared<spdlog::sinks::ostream_sink_mt>(out))) {}

Log::~Log() = default;

void Log::Write(LogLevel level, absl::string_view message,
                const LogFields& fields) {
  if (!impl_->logger.should_log(ToSpdlog(level))) return;
  const std::string time = absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::Now(),
                                            absl::UTCTimeZone());
  const std::string line = impl_->format == LogFormat::kJson
                               ? AsJson(time, level, message, fields)
                               : AsText(time, level, message, fields);
  // The line is an argument and not the format: it may hold braces.
  impl_->logger.log(ToSpdlog(level), "{}", line);
}

void Log::Request(const RequestLine& line) {
  LogFields fields = {
      {"request_id", line.request_id},
      {"rpc", std::string(line.rpc)},
      {"model", line.model},
      {"method", line.method},
      {"code", absl::StatusCodeToString(line.code)},
  };
  if (!line.reason.empty()) fields.emplace_back("reason", line.reason);
  if (!line.error.empty()) fields.emplace_back("error", line.error);
  if (!line.caller.empty()) fields.emplace_back("caller", line.caller);
  fields.emplace_back("trace_id", line.trace_id);
  fields.emplace_back("span_id", line.span_id);
  if (!line.parent_id.empty()) fields.emplace_back("parent_id", line.parent_id);
  fields.emplace_back("tokens", line.num_tokens);
  fields.emplace_back("total_ms", Milliseconds(line.total));
  fields.emplace_back("queue_ms", Milliseconds(line.queue));
  fields.emplace_back("plan_ms", Milliseconds(line.plan));
  fields.emplace_back("compute_ms", Milliseconds(line.compute));
  fields.emplace_back("serialize_ms", Milliseconds(line.serialize));
  fields.emplace_back("send_ms", Milliseconds(line.send));
  fields.emplace_back("reply_bytes", line.reply_bytes);
  Write(line.slow || OurFault(line.code) ? LogLevel::kWarning : LogLevel::kInfo,
        line.slow ? "slow request" : "request", fields);
}

void Log::Flush() { impl_->logger.flush(); }

}  // namespace limpid
