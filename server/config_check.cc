// SPDX-License-Identifier: Apache-2.0
#include "server/config_check.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/device_list.h"
#include "server/base/device_set.h"
#include "server/rpc/address.h"
#include "server/rpc/tokens.h"

namespace limpid {
namespace {

using Config = config::v1::ServerConfig;

constexpr double kMaxSeconds = 86400;
constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();

// Checks values one by one; `name` says how a field is called in messages.
class Checker {
 public:
  Checker(const Overrides& overrides, Violations& mistakes)
      : overrides_(overrides), mistakes_(mistakes) {}

  void Wrong(const std::string& field, absl::string_view what) {
    mistakes_.Add(overrides_.NameOf(field), what);
  }

  template <typename T>
  void Range(const std::string& field, bool set, T value, T low, T high,
             auto assign) {
    if (!set) return;
    if (value >= low && value <= high) {
      assign(value);
    } else if (high == std::numeric_limits<T>::max()) {
      Wrong(field, absl::StrCat(value, " is not ", low, " or more"));
    } else {
      Wrong(field, absl::StrCat(value, " is not in ", low, " to ", high));
    }
  }

  // `exposed`: may be reached from other machines without further ado.
  std::string Listener(const std::string& field, const std::string& value,
                       bool exposed) {
    const absl::StatusOr<HostPort> address = ParseHostPort(value);
    if (!address.ok()) {
      Wrong(field, address.status().message());
    } else if (!exposed && !IsLoopback(*address)) {
      Wrong(field,
            absl::StrCat(value,
                         " is reachable from other machines and speaks "
                         "plain text: bind to loopback, or allow it with "
                         "--allow-plaintext"));
    }
    return value;
  }

  void OneOf(const std::string& field, const std::string& value,
             const std::vector<std::string>& allowed, std::string& target) {
    if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) {
      target = value;
      return;
    }
    std::string names;
    for (const std::string& name : allowed) {
      absl::StrAppend(&names, names.empty() ? "" : ", ", name);
    }
    Wrong(field, absl::StrCat("\"", value, "\" is not one of ", names));
  }

 private:
  const Overrides& overrides_;
  Violations& mistakes_;
};

void CheckDevice(const std::string& device, Checker& check,
                 Settings& settings) {
  settings.device = device;
  std::string why;
  if (ParseDeviceList(device, why)) return;
  check.Wrong("device", absl::StrCat("\"", device, "\" ", why));
}

void CheckRepository(const Config& config, bool required, Checker& check,
                     Settings& settings) {
  settings.model_repository = config.model_repository();
  if (config.model_repository().empty()) {
    if (required)
      check.Wrong("model_repository",
                  "required: a folder of model "
                  "folders (--model-repository DIR)");
    return;
  }
  std::error_code error;
  if (!std::filesystem::is_directory(config.model_repository(), error)) {
    check.Wrong(
        "model_repository",
        absl::StrCat("\"", config.model_repository(), "\" is not a folder",
                     error ? ": " + error.message() : ""));
  }
}

void CheckTls(const config::v1::Tls& tls, Checker& check, Settings& settings) {
  TlsFiles files;
  files.certificate = tls.certificate_file();
  files.key = tls.key_file();
  files.client_ca = tls.client_ca_file();
  check.Range("tls.reload_seconds", tls.has_reload_seconds(),
              tls.reload_seconds(), 1.0, kMaxSeconds,
              [&](double v) { files.reload = absl::Seconds(v); });
  const bool complete = !files.certificate.empty() && !files.key.empty();
  if (files.certificate.empty()) {
    check.Wrong("tls.certificate_file", "required: a PEM file");
  }
  if (files.key.empty()) check.Wrong("tls.key_file", "required: a PEM file");
  if (complete) {
    for (const FieldViolation& mistake : CheckTlsFiles(files)) {
      check.Wrong("tls." + mistake.field, mistake.description);
    }
  }
  settings.tls = files;
}

void CheckTokenFile(const std::string& path, Checker& check,
                    Settings& settings) {
  settings.token_file = path;
  const auto tokens = TokenFile::Open(path, nullptr);
  if (tokens.ok()) return;
  const ErrorDetails details = GetErrorDetails(tokens.status());
  if (details.violations.empty()) {
    check.Wrong("token_file", tokens.status().message());
  }
  for (const FieldViolation& mistake : details.violations) {
    check.Wrong("token_file", absl::StrCat("\"", path, "\" ", mistake.field,
                                           ": ", mistake.description));
  }
}

void CheckConnections(const config::v1::Connections& connections,
                      Checker& check, Settings& s) {
  check.Range<int64_t>("connections.max_connections",
                       connections.has_max_connections(),
                       connections.max_connections(), 1, 1000000,
                       [&](int64_t v) { s.max_connections = v; });
  const auto seconds = [&](const char* name, bool set, double value,
                           absl::Duration& target) {
    check.Range(absl::StrCat("connections.", name), set, value, 0.001,
                kMaxSeconds, [&](double v) { target = absl::Seconds(v); });
  };
  seconds("max_idle_seconds", connections.has_max_idle_seconds(),
          connections.max_idle_seconds(), s.max_idle);
  seconds("max_age_seconds", connections.has_max_age_seconds(),
          connections.max_age_seconds(), s.max_age);
  seconds("max_age_grace_seconds", connections.has_max_age_grace_seconds(),
          connections.max_age_grace_seconds(), s.max_age_grace);
  seconds("keepalive_seconds", connections.has_keepalive_seconds(),
          connections.keepalive_seconds(), s.keepalive);
  seconds("keepalive_timeout_seconds",
          connections.has_keepalive_timeout_seconds(),
          connections.keepalive_timeout_seconds(), s.keepalive_timeout);
  check.Range<int64_t>("connections.max_resets_per_second",
                       connections.has_max_resets_per_second(),
                       connections.max_resets_per_second(), 0, 1000000,
                       [&](int64_t v) { s.max_resets_per_second = v; });
  for (const std::string& text : connections.trusted_proxies()) {
    const auto range = AddressRange::Parse(text);
    if (range.ok()) {
      s.trusted_proxies.push_back(*range);
    } else {
      check.Wrong("connections.trusted_proxies", range.status().message());
    }
  }
}

void CheckBatching(const config::v1::Batching& batching, Checker& check,
                   Settings& s) {
  check.Range<int64_t>("batching.max_batch_size", batching.has_max_batch_size(),
                       batching.max_batch_size(), 1, 1024,
                       [&](int64_t v) { s.max_batch_size = v; });
  check.Range<int64_t>("batching.max_batch_tokens",
                       batching.has_max_batch_tokens(),
                       batching.max_batch_tokens(), 1, 1 << 30,
                       [&](int64_t v) { s.max_batch_tokens = v; });
  check.Range("batching.max_wait_milliseconds",
              batching.has_max_wait_milliseconds(),
              batching.max_wait_milliseconds(), 0.0, 1000.0,
              [&](double v) { s.max_batch_wait = absl::Milliseconds(v); });
  check.Range("batching.max_batch_seconds", batching.has_max_batch_seconds(),
              batching.max_batch_seconds(), 0.001, kMaxSeconds,
              [&](double v) { s.max_batch_seconds = v; });
}

}  // namespace

Settings CheckConfig(const Config& config, bool repository_required,
                     const Overrides& overrides, Violations& mistakes) {
  Checker check(overrides, mistakes);
  Settings s;
  CheckRepository(config, repository_required, check, s);
  s.allow_plaintext = config.allow_plaintext();
  if (config.has_listen()) {
    s.listen = check.Listener("listen", config.listen(),
                              s.allow_plaintext || config.has_tls());
  }
  if (config.has_metrics() && config.metrics() == "off") {
    s.metrics.reset();
  } else if (config.has_metrics()) {
    s.metrics = check.Listener("metrics", config.metrics(), s.allow_plaintext);
  }
  // Made for probes from outside; says nothing but whether the server serves.
  if (config.has_health()) {
    s.health = check.Listener("health", config.health(), true);
  }
  if (config.has_device()) CheckDevice(config.device(), check, s);
  s.startup_models.assign(config.startup_models().begin(),
                          config.startup_models().end());
  if (config.has_reflection()) s.reflection = config.reflection();
  check.Range("drain_seconds", config.has_drain_seconds(),
              config.drain_seconds(), 0.0, 14.0,
              [&](double v) { s.drain = absl::Seconds(v); });

  s.serving_window = std::min(s.serving_window, s.drain);
  check.Range("serving_window_seconds", config.has_serving_window_seconds(),
              config.serving_window_seconds(), 0.0,
              absl::ToDoubleSeconds(s.drain),
              [&](double v) { s.serving_window = absl::Seconds(v); });
  check.Range("repository_poll_seconds", config.has_repository_poll_seconds(),
              config.repository_poll_seconds(), 0.1, 86400.0,
              [&](double v) { s.repository_poll = absl::Seconds(v); });
  if (config.has_tls()) CheckTls(config.tls(), check, s);
  if (config.has_token_file()) {
    CheckTokenFile(config.token_file(), check, s);
  }
  s.gzip = config.gzip();
  CheckConnections(config.connections(), check, s);

  const config::v1::Limits& limits = config.limits();
  check.Range<int64_t>("limits.max_tokens", limits.has_max_tokens(),
                       limits.max_tokens(), 1, 1 << 20,
                       [&](int64_t v) { s.max_tokens = v; });
  check.Range<int64_t>("limits.max_request_bytes",
                       limits.has_max_request_bytes(),
                       limits.max_request_bytes(), 1024, 1 << 30,
                       [&](int64_t v) { s.max_request_bytes = v; });
  check.Range<int64_t>("limits.max_unary_reply_bytes",
                       limits.has_max_unary_reply_bytes(),
                       limits.max_unary_reply_bytes(), 1024, 1 << 30,
                       [&](int64_t v) { s.max_unary_reply_bytes = v; });
  check.Range<int64_t>("limits.max_request_memory_bytes",
                       limits.has_max_request_memory_bytes(),
                       limits.max_request_memory_bytes(), 1 << 20, kMaxInt64,
                       [&](int64_t v) { s.max_request_memory_bytes = v; });
  check.Range<int64_t>("limits.max_queue_size", limits.has_max_queue_size(),
                       limits.max_queue_size(), 1, 100000,
                       [&](int64_t v) { s.max_queue_size = v; });
  s.max_client_queue_size = std::max<int64_t>(1, s.max_queue_size / 2);
  check.Range<int64_t>("limits.max_client_queue_size",
                       limits.has_max_client_queue_size(),
                       limits.max_client_queue_size(), 1, s.max_queue_size,
                       [&](int64_t v) { s.max_client_queue_size = v; });
  check.Range("limits.max_queue_seconds", limits.has_max_queue_seconds(),
              limits.max_queue_seconds(), 0.001, 1e9,
              [&](double v) { s.max_queue_time = absl::Seconds(v); });
  s.max_running_memory_bytes = s.max_request_memory_bytes > kMaxInt64 / 2
                                   ? kMaxInt64
                                   : 2 * s.max_request_memory_bytes;
  check.Range<int64_t>(
      "limits.max_running_memory_bytes", limits.has_max_running_memory_bytes(),
      limits.max_running_memory_bytes(), s.max_request_memory_bytes, kMaxInt64,
      [&](int64_t v) { s.max_running_memory_bytes = v; });
  check.Range<int64_t>("limits.max_resident_bytes",
                       limits.has_max_resident_bytes(),
                       limits.max_resident_bytes(), int64_t{1} << 20, kMaxInt64,
                       [&](int64_t v) { s.max_resident_bytes = v; });
  check.Range("limits.max_request_seconds", limits.has_max_request_seconds(),
              limits.max_request_seconds(), 0.001, 86400.0,
              [&](double v) { s.max_request_time = absl::Seconds(v); });

  const config::v1::Compute& compute = config.compute();
  check.Range<int64_t>("compute.workers", compute.has_workers(),
                       compute.workers(), 1, 1024,
                       [&](int64_t v) { s.workers = v; });
  check.Range<int64_t>("compute.threads_per_worker",
                       compute.has_threads_per_worker(),
                       compute.threads_per_worker(), 1, 1024,
                       [&](int64_t v) { s.threads_per_worker = v; });
  check.Range<int64_t>("compute.copies", compute.has_copies(), compute.copies(),
                       1, kMaxDevices, [&](int64_t v) { s.copies = v; });

  CheckBatching(config.batching(), check, s);

  if (config.log().has_format()) {
    check.OneOf("log.format", config.log().format(), {"json", "text"},
                s.log_format);
  }
  if (config.log().has_level()) {
    check.OneOf("log.level", config.log().level(),
                {"debug", "info", "warning", "error"}, s.log_level);
  }
  check.Range("log.slow_request_seconds",
              config.log().has_slow_request_seconds(),
              config.log().slow_request_seconds(), 0.0, kMaxSeconds,
              [&](double v) { s.slow_request = absl::Seconds(v); });
  return s;
}

}  // namespace limpid
