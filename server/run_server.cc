// SPDX-License-Identifier: Apache-2.0
#include "server/run_server.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
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
#include "server/observe/log.h"
#include "server/rpc/library_logs.h"
#include "server/rpc/serving.h"
#include "server/shutdown_signal.h"
#include "server/version.h"

namespace limpid {
namespace {

using EngineMaker = std::function<absl::StatusOr<std::unique_ptr<Engine>>(
    const EngineOptions&)>;

constexpr int kFailed = 1;
constexpr int kUsage = 2;
// The process is gone this long after the signal, whatever clients or jobs do.
constexpr absl::Duration kHardLimit = absl::Milliseconds(14700);
constexpr rlim_t kMaxDescriptors = 65536;
// What cancelled work gets to notice.
constexpr absl::Duration kNotice = absl::Milliseconds(500);
// What runs elsewhere gets to end when a device was lost.
constexpr absl::Duration kLostDrain = absl::Seconds(2);

int Refuse(const absl::Status& status, int code) {
  const ErrorDetails details = GetErrorDetails(status);
  for (const FieldViolation& mistake : details.violations) {
    std::cerr << "limpid-server: " << mistake.field << ": "
              << mistake.description << "\n";
  }
  if (details.violations.empty()) {
    std::cerr << "limpid-server: " << status.message() << "\n";
  }
  return code;
}

LogOptions ToLogOptions(const Settings& settings) {
  LogOptions options;
  options.format =
      settings.log_format == "text" ? LogFormat::kText : LogFormat::kJson;
  options.level = settings.log_level == "debug"     ? LogLevel::kDebug
                  : settings.log_level == "warning" ? LogLevel::kWarning
                  : settings.log_level == "error"   ? LogLevel::kError
                                                    : LogLevel::kInfo;
  return options;
}

EngineOptions ToEngineOptions(const Settings& settings) {
  EngineOptions options;
  options.device = settings.device;
  options.threads_per_worker = settings.threads_per_worker;
  options.max_tokens = settings.max_tokens;
  options.max_request_memory_bytes = settings.max_request_memory_bytes;
  return options;
}

ServingOptions ToServingOptions(const Settings& settings,
                                const std::vector<std::string>& devices) {
  ServingOptions options;
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
                             settings.max_resets_per_second,
                             settings.trusted_proxies};
  options.token_file = settings.token_file;
  options.slow_request = settings.slow_request;
  options.serving_window = settings.serving_window;
  options.metrics = settings.metrics;
  options.version = kVersion;
  options.num_workers = NumWorkers(settings, devices);
  options.batch = BatchingOn(settings, devices);
  options.max_queue_size = settings.max_queue_size;
  options.max_client_queue_size = settings.max_client_queue_size;
  options.max_queue_time = settings.max_queue_time;
  options.max_running_memory_bytes = settings.max_running_memory_bytes;
  options.max_resident_bytes = settings.max_resident_bytes;
  options.repository_poll = settings.repository_poll;
  options.num_copies = settings.copies;
  options.max_tokens = settings.max_tokens;
  options.max_unary_reply_bytes = settings.max_unary_reply_bytes;
  options.max_request_time = settings.max_request_time;
  options.methods = ListedMethods();
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

int Serve(const Settings& settings, const EngineMaker& make_engine,
          ShutdownSignal& signal) {
  const HeapTrimmer trimmer{HeapTrimmer::Options()};
  Log log(ToLogOptions(settings));
  const LibraryLogs library_logs(log);
  std::atomic<bool> device_lost{false};
  EngineOptions engine_options = ToEngineOptions(settings);
  engine_options.on_device_lost = [&](const std::string& device) {
    log.Write(LogLevel::kError, "device lost", {{"device", device}});
    device_lost = true;
    signal.Wake();
  };
  const auto engine = make_engine(engine_options);
  if (!engine.ok()) return Refuse(engine.status(), kUsage);
  auto serving = Serving::Start(
      ToServingOptions(settings, (*engine)->devices()), **engine, log);
  if (!serving.ok()) {
    const bool usage = absl::IsInvalidArgument(serving.status());
    return Refuse(serving.status(), usage ? kUsage : kFailed);
  }
  // Whether the process is to end.
  const auto wait = [&] { return signal.Wait() || device_lost; };
  (*serving)->LoadModels([&signal] { signal.Wake(); });
  if (!wait()) {
    (*serving)->SetServing();
    if (!(*serving)->health_address().empty()) {
      log.Write(LogLevel::kInfo, "health",
                {{"address", (*serving)->health_address()}});
    }
    if (!(*serving)->metrics_address().empty()) {
      std::cout << "metrics on " << (*serving)->metrics_address() << "\n";
    }
    std::cout << "limpid-server listening on " << (*serving)->address()
              << std::endl;
    while (!wait()) {
    }
  }
  const absl::Time now = absl::Now();
  const absl::Duration drain =
      device_lost ? std::min(kLostDrain, settings.drain) : settings.drain;
  const int code = device_lost ? kFailed : EXIT_SUCCESS;
  signal.ExitAt(now + kHardLimit, code);
  log.Write(LogLevel::kInfo, "draining");
  const bool clean = (*serving)->Drain(now + drain, now + drain + kNotice);
  log.Write(LogLevel::kInfo, clean ? "stopped" : "stopped with work on");
  log.Flush();
  // Work that does not listen can't be waited for, and what a lost device held
  // can't be given back.
  if (!clean || device_lost) std::_Exit(code);
  return code;
}

}  // namespace

int RunServer(const std::vector<std::string>& arguments,
              const EngineMaker& make_engine) {
  // gRPC's locks are absl's, which in Debian's build look for cycles each time
  // that they are taken.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  ShutdownSignal& signal = *new ShutdownSignal;
  RaiseDescriptorLimit();
  const auto line = ParseCommandLine(arguments);
  if (!line.ok()) return Refuse(line.status(), kUsage);
  if (line->action != CommandLine::Action::kServe) {
    std::cout << line->text << std::flush;
    return EXIT_SUCCESS;
  }
  return Serve(line->settings, make_engine, signal);
}

}  // namespace limpid
