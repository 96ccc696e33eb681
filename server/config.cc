// SPDX-License-Identifier: Apache-2.0
#include "server/config.h"

#include <algorithm>
#include <thread>

#include "absl/strings/match.h"
#include "server/config_check.h"
#include "server/config_file.h"
#include "server/config_flags.h"

namespace limpid {
namespace {

using Config = config::v1::ServerConfig;

Overrides ApplyFlags(const Flags& flags, Config& config) {
  Overrides overrides;
  overrides.Apply(
      flags.model_repository, "model_repository", "--model-repository",
      [&](const std::string& v) { config.set_model_repository(v); });
  overrides.Apply(flags.listen, "listen", "--listen",
                  [&](const std::string& v) { config.set_listen(v); });
  overrides.Apply(flags.metrics, "metrics", "--metrics",
                  [&](const std::string& v) { config.set_metrics(v); });
  overrides.Apply(flags.device, "device", "--device",
                  [&](const std::string& v) { config.set_device(v); });
  overrides.Apply(flags.health, "health", "--health",
                  [&](const std::string& v) { config.set_health(v); });
  if (flags.allow_plaintext) config.set_allow_plaintext(true);
  return overrides;
}

void SetTransport(const Settings& s, Config& config) {
  if (s.tls) {
    config::v1::Tls& tls = *config.mutable_tls();
    tls.set_certificate_file(s.tls->certificate);
    tls.set_key_file(s.tls->key);
    if (!s.tls->client_ca.empty()) tls.set_client_ca_file(s.tls->client_ca);
    tls.set_reload_seconds(absl::ToDoubleSeconds(s.tls->reload));
  }
  if (!s.token_file.empty()) config.set_token_file(s.token_file);
  config.set_gzip(s.gzip);
  config.set_serving_window_seconds(absl::ToDoubleSeconds(s.serving_window));
  if (s.repository_poll != absl::InfiniteDuration()) {
    config.set_repository_poll_seconds(
        absl::ToDoubleSeconds(s.repository_poll));
  }
  config::v1::Connections& connections = *config.mutable_connections();
  connections.set_max_connections(static_cast<int32_t>(s.max_connections));
  connections.set_max_idle_seconds(absl::ToDoubleSeconds(s.max_idle));
  if (s.max_age != absl::InfiniteDuration()) {
    connections.set_max_age_seconds(absl::ToDoubleSeconds(s.max_age));
  }
  connections.set_max_age_grace_seconds(absl::ToDoubleSeconds(s.max_age_grace));
  connections.set_keepalive_seconds(absl::ToDoubleSeconds(s.keepalive));
  connections.set_keepalive_timeout_seconds(
      absl::ToDoubleSeconds(s.keepalive_timeout));
  connections.set_max_resets_per_second(
      static_cast<int32_t>(s.max_resets_per_second));
  for (const AddressRange& range : s.trusted_proxies) {
    connections.add_trusted_proxies(range.text());
  }
}

// Every setting spelled out, but for those that depend on the device.
Config ToConfig(const Settings& s) {
  Config config;
  config.set_model_repository(s.model_repository);
  config.set_listen(s.listen);
  config.set_metrics(s.metrics.value_or("off"));
  config.set_device(s.device);
  config.set_allow_plaintext(s.allow_plaintext);
  if (s.health) config.set_health(*s.health);
  for (const std::string& model : s.startup_models) {
    config.add_startup_models(model);
  }
  config.set_reflection(s.reflection);
  config.set_drain_seconds(absl::ToDoubleSeconds(s.drain));
  auto& limits = *config.mutable_limits();
  limits.set_max_tokens(static_cast<int32_t>(s.max_tokens));
  limits.set_max_request_bytes(s.max_request_bytes);
  limits.set_max_unary_reply_bytes(s.max_unary_reply_bytes);
  limits.set_max_request_memory_bytes(s.max_request_memory_bytes);
  limits.set_max_queue_size(static_cast<int32_t>(s.max_queue_size));
  limits.set_max_client_queue_size(
      static_cast<int32_t>(s.max_client_queue_size));
  limits.set_max_queue_seconds(absl::ToDoubleSeconds(s.max_queue_time));
  if (s.max_resident_bytes != std::numeric_limits<int64_t>::max()) {
    limits.set_max_resident_bytes(s.max_resident_bytes);
  }
  limits.set_max_running_memory_bytes(s.max_running_memory_bytes);
  limits.set_max_request_seconds(absl::ToDoubleSeconds(s.max_request_time));
  auto& compute = *config.mutable_compute();
  if (s.workers) compute.set_workers(static_cast<int32_t>(*s.workers));
  if (s.copies > 0) compute.set_copies(static_cast<int32_t>(s.copies));
  compute.set_threads_per_worker(static_cast<int32_t>(s.threads_per_worker));
  config::v1::Batching& batching = *config.mutable_batching();
  if (s.max_batch_size) {
    batching.set_max_batch_size(static_cast<int32_t>(*s.max_batch_size));
  }
  if (s.max_batch_tokens) {
    batching.set_max_batch_tokens(static_cast<int32_t>(*s.max_batch_tokens));
  }
  if (s.max_batch_wait) {
    batching.set_max_wait_milliseconds(
        absl::ToDoubleMilliseconds(*s.max_batch_wait));
  }
  batching.set_max_batch_seconds(s.max_batch_seconds);
  config.mutable_log()->set_format(s.log_format);
  config.mutable_log()->set_level(s.log_level);
  config.mutable_log()->set_slow_request_seconds(
      absl::ToDoubleSeconds(s.slow_request));
  SetTransport(s, config);
  return config;
}

// Workers of a GPU by default. Short requests are as fast as they are launched:
// of 64 tokens one worker of an H100 does 1,030 a second, 8 do 2,960.
constexpr int64_t kMostOnGpu = 8;

bool OnGpu(const std::vector<std::string>& devices) {
  return !absl::StartsWith(devices.front(), "cpu");
}

}  // namespace

int64_t NumWorkers(const Settings& settings,
                   const std::vector<std::string>& devices) {
  if (settings.workers) return *settings.workers;
  const int64_t num_cores = std::thread::hardware_concurrency();
  const int64_t for_each = num_cores / std::ssize(devices);
  // A worker of a GPU is a core that launches kernels; the other half is for
  // requests and replies.
  return OnGpu(devices)
             ? std::clamp<int64_t>(for_each / 2, 1, kMostOnGpu)
             : std::max<int64_t>(1, for_each / settings.threads_per_worker);
}

BatchLimits BatchingOn(const Settings& settings,
                       const std::vector<std::string>& devices) {
  const bool on_gpu = OnGpu(devices);
  BatchLimits limits;
  limits.max_size = settings.max_batch_size.value_or(on_gpu ? 16 : 1);
  limits.max_positions = settings.max_batch_tokens.value_or(
      on_gpu ? std::numeric_limits<int64_t>::max() : 256);
  limits.max_wait = settings.max_batch_wait.value_or(
      on_gpu ? absl::Milliseconds(2) : absl::ZeroDuration());
  limits.max_seconds = settings.max_batch_seconds;
  return limits;
}

absl::StatusOr<CommandLine> ParseCommandLine(
    const std::vector<std::string>& arguments) {
  CommandLine line;
  Violations mistakes;
  const Flags flags = ParseFlags(arguments, mistakes);
  if (!flags.print.empty()) {
    line.action = CommandLine::Action::kPrint;
    line.text = flags.print;
    return line;
  }
  Config config;
  if (flags.config) ReadConfigFile(*flags.config, config, mistakes);
  const Overrides overrides = ApplyFlags(flags, config);
  line.settings = CheckConfig(config, !flags.print_config, overrides, mistakes);
  LIMPID_RETURN_IF_ERROR(mistakes.ToStatus("CONFIGURATION_INVALID"));
  if (flags.print_config) {
    line.action = CommandLine::Action::kPrintConfig;
    line.text = ConfigToJson(ToConfig(line.settings));
  }
  return line;
}

}  // namespace limpid
