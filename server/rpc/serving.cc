// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/serving.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "server/base/periodic.h"
#include "server/observe/exposer.h"
#include "server/registry/repository_watch.h"
#include "server/rpc/explanation_service.h"
#include "server/rpc/inference_service.h"
#include "server/rpc/model_service.h"
#include "server/rpc/status_map.h"

namespace limpid {
namespace {

// Loading is mostly reading files; two at a time keep disk and CPU busy.
constexpr int64_t kNumLoaders = 2;
constexpr int64_t kMaxLoadsWaiting = 1024;
// Streams that wait for their readers beside those that are computed, each on a
// thread; beyond them workers wait, too.
constexpr int64_t kMaxPaused = 32;
constexpr int64_t kMaxPausedOfClient = 4;
// What clients get to take the last bytes of their replies.
constexpr absl::Duration kLastBytes = absl::Milliseconds(300);

QueueLimits LoaderLimits() {
  QueueLimits limits;
  limits.max_running = kNumLoaders;
  limits.max_waiting = limits.max_waiting_of_client = kMaxLoadsWaiting;
  return limits;
}

QueueLimits ComputeLimits(const ServingOptions& options) {
  QueueLimits limits;
  limits.max_running = options.num_workers;
  limits.max_waiting = options.max_queue_size;
  limits.max_waiting_of_client = options.max_client_queue_size;
  limits.max_waiting_seconds = absl::ToDoubleSeconds(options.max_queue_time) *
                               static_cast<double>(options.num_workers);
  limits.max_running_bytes = options.max_running_memory_bytes;
  limits.max_paused = kMaxPaused;
  limits.max_paused_of_client = kMaxPausedOfClient;
  return limits;
}

class ServingImpl final : public Serving, private RegistryObserver {
 public:
  ServingImpl(ServingOptions options, const Engine& engine, Log& log)
      : options_(std::move(options)),
        engine_(engine),
        device_(engine.device()),
        log_(log),
        metrics_(options_.version),
        tracker_(metrics_),
        calls_{metrics_, log, tracker_, options_.max_request_time,
               options_.slow_request},
        registry_(
            {options_.model_repository,
             [&engine](const std::string& name, const VersionFolder& folder) {
               return engine.Load(name, folder.path, folder.version);
             },
             this, &Clock::Real(), options_.max_resident_bytes,
             [&engine](const std::string& folder) {
               return engine.WeightBytes(folder);
             }}),
        loaders_({LoaderLimits(), BatchLimits(), &Clock::Real(), nullptr}),
        pool_({ComputeLimits(options_), options_.batch, &Clock::Real(),
               &metrics_}),
        explanations_({engine, registry_, pool_, calls_, options_.methods,
                       options_.version, options_.max_unary_reply_bytes,
                       options_.stream}),
        models_({registry_, loaders_, calls_, options_.methods,
                 options_.architectures, options_.max_tokens}),
        inference_({explanations_, models_, registry_, calls_, options_.version,
                    [this] { return ready_.load(); }}) {}

  ~ServingImpl() override {
    poll_.reset();
    Drain(absl::InfinitePast(), absl::InfiniteFuture());
    // Nobody may be told of models that go with the registry.
    MutexLock lock(mutex_);
    server_.reset();
  }

  absl::Status Open() {
    LIMPID_RETURN_IF_ERROR(ReadTokens());
    LIMPID_RETURN_IF_ERROR(registry_.Scan());
    LIMPID_RETURN_IF_ERROR(CheckStartupModels());
    if (options_.metrics) {
      LIMPID_ASSIGN_OR_RETURN(
          exposer_, MetricsExposer::Open(*options_.metrics, metrics_.registry(),
                                         [this] { MeasureDevice(); }));
      metrics_address_ = exposer_->address();
    }
    RpcServerOptions rpc = options_.rpc;
    rpc.on_connection = [this](bool accepted) {
      metrics_.ConnectionCame(accepted);
    };
    rpc.on_barred = [this](const std::string& host, int64_t num_resets) {
      metrics_.PeerBarred();
      log_.Write(LogLevel::kWarning, "peer barred for resetting streams",
                 {{"host", host}, {"resets", num_resets}});
    };
    LIMPID_ASSIGN_OR_RETURN(
        auto server,
        RpcServer::Start(rpc, {&explanations_, &models_, &inference_}));
    address_ = server->address();
    health_address_ = server->health_address();
    {
      MutexLock lock(mutex_);
      server_ = std::move(server);
    }
    for (const std::string& name : registry_.Names()) OnModelChanged(name);
    if (options_.repository_poll != absl::InfiniteDuration()) {
      poll_ = std::make_unique<Periodic>(options_.repository_poll,
                                         [this] { LookAtRepository(); });
    }
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }
  const std::string& metrics_address() const override {
    return metrics_address_;
  }
  const std::string& health_address() const override { return health_address_; }
  ModelRegistry& registry() override { return registry_; }
  Metrics& metrics() override { return metrics_; }
  WorkerPool& pool() override { return pool_; }

  void LoadModels(std::function<void()> done) override {
    const std::vector<std::string> names = options_.startup_models.empty()
                                               ? registry_.Names()
                                               : options_.startup_models;
    if (names.empty()) return done();
    auto num_left = std::make_shared<std::atomic<size_t>>(names.size());
    const auto one_ended = [num_left, done = std::move(done)] {
      if (--*num_left == 0) done();
    };
    for (const std::string& name : names) {
      const auto job = loaders_.Submit(
          {CancelToken(), [this, name, one_ended](const absl::Status& status) {
             if (!status.ok()) return one_ended();
             // One must not push out the other.
             registry_.Load(name, /*may_evict=*/false,
                            [one_ended](const absl::StatusOr<ModelStatus>&) {
                              one_ended();
                            });
           }});
      if (!job.ok()) one_ended();
    }
  }

  void SetServing() override {
    MutexLock lock(mutex_);
    ready_ = true;
    if (server_ != nullptr) server_->SetServing("", true);
  }

  bool Drain(absl::Time finish_by, absl::Time give_up_at) override {
    RpcServer* server = nullptr;
    ready_ = false;
    {
      MutexLock lock(mutex_);
      server = server_.get();
      if (server != nullptr) server->StopServing();
    }
    // So that whoever looks at health can turn away before being refused.
    absl::SleepFor(std::min(options_.serving_window, finish_by - absl::Now()));
    // Both refuse new work before either is waited for.
    loaders_.StopAdmission();
    pool_.StopAdmission();
    bool clean = pool_.Drain(finish_by, give_up_at);
    clean = loaders_.Drain(finish_by, give_up_at) && clean;
    if (!clean) return false;
    if (server == nullptr) return true;
    tracker_.WaitForNone(std::max(finish_by, absl::Now() + kLastBytes));
    server->Shutdown(absl::Now() + kLastBytes);
    return true;
  }

 private:
  absl::Status ReadTokens() {
    if (options_.token_file.empty()) return absl::OkStatus();
    LIMPID_ASSIGN_OR_RETURN(tokens_,
                            TokenFile::Open(options_.token_file,
                                            [this](const absl::Status& status) {
                                              OnTokensRead(status);
                                            }));
    calls_.tokens = tokens_.get();
    return absl::OkStatus();
  }

  void LookAtRepository() {
    const auto changed = watch_.Look();
    if (!changed.ok()) {
      return log_.Write(LogLevel::kError, "repository not read",
                        {{"error", std::string(changed.status().message())}});
    }
    for (const std::string& name : *changed) {
      log_.Write(LogLevel::kInfo, "model folder changed", {{"model", name}});
      // A refusal means that the server is going, or comes again with the next
      // look.
      (void)loaders_.Submit(
          {CancelToken(), [this, name](const absl::Status& status) {
             if (!status.ok()) return;
             registry_.Load(name, [](const absl::StatusOr<ModelStatus>&) {});
           }});
    }
  }

  void MeasureDevice() {
    const auto memory = engine_.memory();
    if (!memory) return;
    metrics_.SetGpuMemory(device_, memory->used_bytes, memory->total_bytes);
  }

  void OnTokensRead(const absl::Status& status) {
    metrics_.TokensRead(status.code());
    if (status.ok()) return log_.Write(LogLevel::kInfo, "tokens replaced");
    log_.Write(LogLevel::kError, "tokens not replaced",
               {{"error", std::string(status.message())}});
  }

  absl::Status CheckStartupModels() const {
    Violations violations;
    for (const std::string& name : options_.startup_models) {
      if (!registry_.Knows(name)) {
        violations.Add("startup_models",
                       absl::StrCat("no model \"", name,
                                    "\" in the repository; known models: ",
                                    absl::StrJoin(registry_.Names(), ", ")));
      }
    }
    return violations.ToStatus("CONFIGURATION_INVALID");
  }

  void OnModelChanged(const std::string& name) override {
    // Looks at the newest state under the lock: notices may overtake each
    // other.
    MutexLock lock(mutex_);
    const auto status = registry_.Get(name);
    if (!status.ok()) return;
    metrics_.SetResidentBytes(name, device_,
                              status->info ? status->info->resident_bytes : 0);
    metrics_.SetModelState(name, status->state);
    if (server_ != nullptr) {
      server_->SetServing(name, status->state == ModelState::kReady);
    }
  }

  void OnLoadEnded(const std::string& name, absl::Duration took,
                   const absl::Status& status) override {
    metrics_.LoadEnded(name, took, status.code());
    LogFields fields = {{"model", name},
                        {"seconds", absl::ToDoubleSeconds(took)}};
    if (status.ok()) {
      // The only moment at which weights move: models are immutable.
      const auto loaded = registry_.Get(name);
      if (loaded.ok() && loaded->info) {
        metrics_.WeightsCopied(device_, loaded->info->resident_bytes);
      }
      log_.Write(LogLevel::kInfo, "model loaded", fields);
      return;
    }
    fields.emplace_back("code", CodeName(status.code()));
    fields.emplace_back("reason", ReasonOf(status));
    fields.emplace_back("error", std::string(status.message()));
    log_.Write(LogLevel::kWarning, "model not loaded", fields);
  }

  void OnEvicted(const std::string& name, const std::string& by) override {
    metrics_.ModelEvicted(name);
    log_.Write(LogLevel::kInfo, "model evicted",
               {{"model", name}, {"for_model", by}});
    OnModelChanged(name);
  }

  const ServingOptions options_;
  const Engine& engine_;
  const std::string device_;
  Log& log_;
  Metrics metrics_;
  CallTracker tracker_;
  std::unique_ptr<TokenFile> tokens_;
  CallServices calls_;
  std::string address_, metrics_address_, health_address_;
  std::unique_ptr<MetricsExposer> exposer_;
  Mutex mutex_;
  std::unique_ptr<RpcServer> server_ LIMPID_GUARDED_BY(mutex_);
  ModelRegistry registry_;
  WorkerPool loaders_;
  WorkerPool pool_;
  ExplanationService explanations_;
  ModelService models_;
  std::atomic<bool> ready_{false};
  InferenceService inference_;
  // Where all models are served, new ones are, too.
  RepositoryWatch watch_{registry_, options_.startup_models.empty()};
  std::unique_ptr<Periodic> poll_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Serving>> Serving::Start(ServingOptions options,
                                                        const Engine& engine,
                                                        Log& log) {
  auto serving = std::make_unique<ServingImpl>(std::move(options), engine, log);
  LIMPID_RETURN_IF_ERROR(serving->Open());
  return serving;
}

}  // namespace limpid
