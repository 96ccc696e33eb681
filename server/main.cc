// SPDX-License-Identifier: Apache-2.0
//
// limpid-server: parse, wire, run, drain.
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/attribution/method_spec.h"
#include "server/base/heap_trimmer.h"
#include "server/config.h"
#include "server/explain/engine.h"
#include "server/observe/log.h"
#include "server/rpc/library_logs.h"
#include "server/rpc/serving.h"
#include "server/shutdown_signal.h"
#include "server/version.h"

namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;
// The process is gone this long after the signal, whatever clients or jobs do.
constexpr absl::Duration kHardLimit = absl::Milliseconds(14700);
constexpr rlim_t kMaxDescriptors = 65536;
// What cancelled work gets to notice.
constexpr absl::Duration kNotice = absl::Milliseconds(500);

int Refuse(const absl::Status& status, int code) {
  const limpid::ErrorDetails details = limpid::GetErrorDetails(status);
  for (const limpid::FieldViolation& mistake : details.violations) {
    std::cerr << "limpid-server: " << mistake.field << ": "
              << mistake.description << "\n";
  }
  if (details.violations.empty()) {
    std::cerr << "limpid-server: " << status.message() << "\n";
  }
  return code;
}

limpid::LogOptions ToLogOptions(const limpid::Settings& settings) {
  using limpid::LogLevel;
  limpid::LogOptions options;
  options.format = settings.log_format == "text" ? limpid::LogFormat::kText
                                                 : limpid::LogFormat::kJson;
  options.level = settings.log_level == "debug"     ? LogLevel::kDebug
                  : settings.log_level == "warning" ? LogLevel::kWarning
                  : settings.log_level == "error"   ? LogLevel::kError
                                                    : LogLevel::kInfo;
  return options;
}

limpid::EngineOptions ToEngineOptions(const limpid::Settings& settings) {
  limpid::EngineOptions options;
  options.device = settings.device;
  options.threads_per_worker = settings.threads_per_worker;
  options.max_tokens = settings.max_tokens;
  options.max_request_memory_bytes = settings.max_request_memory_bytes;
  return options;
}

limpid::ServingOptions ToServingOptions(const limpid::Settings& settings,
                                        const std::string& device) {
  limpid::ServingOptions options;
  options.model_repository = settings.model_repository;
  options.startup_models = settings.startup_models;
  options.rpc.listen = settings.listen;
  options.rpc.health = settings.health;
  options.rpc.reflection = settings.reflection;
  options.rpc.max_request_bytes = settings.max_request_bytes;
  options.rpc.tls = settings.tls;
  options.rpc.gzip = settings.gzip;
  options.rpc.connections = {settings.max_connections,
                             settings.max_idle,
                             settings.max_age,
                             settings.max_age_grace,
                             settings.keepalive,
                             settings.keepalive_timeout,
                             settings.max_resets_per_second};
  options.token_file = settings.token_file;
  options.slow_request = settings.slow_request;
  options.serving_window = settings.serving_window;
  options.metrics = settings.metrics;
  options.version = limpid::kVersion;
  options.num_workers = limpid::NumWorkers(settings, device);
  options.batch = limpid::BatchingOn(settings, device);
  options.max_queue_size = settings.max_queue_size;
  options.max_client_queue_size = settings.max_client_queue_size;
  options.max_queue_time = settings.max_queue_time;
  options.max_running_memory_bytes = settings.max_running_memory_bytes;
  options.max_resident_bytes = settings.max_resident_bytes;
  options.repository_poll = settings.repository_poll;
  options.max_tokens = settings.max_tokens;
  options.max_unary_reply_bytes = settings.max_unary_reply_bytes;
  options.max_request_time = settings.max_request_time;
  options.methods = limpid::ListedMethods();
  return options;
}

// Connections are descriptors, and gRPC's listener does not survive running out
// of them.
void RaiseDescriptorLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, kMaxDescriptors);
  setrlimit(RLIMIT_NOFILE, &limit);
}

int Serve(const limpid::Settings& settings, limpid::ShutdownSignal& signal) {
  const limpid::HeapTrimmer trimmer{limpid::HeapTrimmer::Options()};
  limpid::Log log(ToLogOptions(settings));
  const limpid::LibraryLogs library_logs(log);
  const auto engine = limpid::Engine::Create(ToEngineOptions(settings));
  if (!engine.ok()) return Refuse(engine.status(), kUsage);
  auto serving = limpid::Serving::Start(
      ToServingOptions(settings, (*engine)->device()), **engine, log);
  if (!serving.ok()) {
    const bool usage = absl::IsInvalidArgument(serving.status());
    return Refuse(serving.status(), usage ? kUsage : kFailed);
  }
  (*serving)->LoadModels([&signal] { signal.Wake(); });
  if (!signal.Wait()) {
    (*serving)->SetServing();
    if (!(*serving)->health_address().empty()) {
      log.Write(limpid::LogLevel::kInfo, "health",
                {{"address", (*serving)->health_address()}});
    }
    if (!(*serving)->metrics_address().empty()) {
      std::cout << "metrics on " << (*serving)->metrics_address() << "\n";
    }
    std::cout << "limpid-server listening on " << (*serving)->address()
              << std::endl;
    while (!signal.Wait()) {
    }
  }
  const absl::Time now = absl::Now();
  signal.ExitAt(now + kHardLimit, EXIT_SUCCESS);
  log.Write(limpid::LogLevel::kInfo, "draining");
  const bool clean =
      (*serving)->Drain(now + settings.drain, now + settings.drain + kNotice);
  log.Write(limpid::LogLevel::kInfo,
            clean ? "stopped" : "stopped with work on");
  log.Flush();
  // Work that does not listen can't be waited for.
  if (!clean) std::_Exit(EXIT_SUCCESS);
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  // gRPC's locks are absl's, which in Debian's build look for cycles each time
  // that they are taken.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  limpid::ShutdownSignal& signal = *new limpid::ShutdownSignal;
  RaiseDescriptorLimit();
  const auto line =
      limpid::ParseCommandLine(std::vector<std::string>(argv + 1, argv + argc));
  if (!line.ok()) return Refuse(line.status(), kUsage);
  if (line->action != limpid::CommandLine::Action::kServe) {
    std::cout << line->text << std::flush;
    return EXIT_SUCCESS;
  }
  return Serve(line->settings, signal);
}
