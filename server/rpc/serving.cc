// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/serving.h"

#include <algorithm>
#include <atomic>
#include <map>
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
// How often it is looked whether a model is wanted on a further device.
constexpr absl::Duration kDemandLook = absl::Milliseconds(250);
// What clients get to take the last bytes of their replies.
constexpr absl::Duration kLastBytes = absl::Milliseconds(300);

QueueLimits LoaderLimits() {
  QueueLimits limits;
  limits.max_running = kNumLoaders;
  limits.max_waiting = limits.max_waiting_of_client = kMaxLoadsWaiting;
  return limits;
}

QueueLimits ComputeLimits(const ServingOptions& options, int64_t num_devices) {
  QueueLimits limits;
  limits.num_devices = num_devices;
  limits.max_running = options.num_workers;
  limits.max_waiting = options.max_queue_size;
  limits.max_waiting_of_client = options.max_client_queue_size;
  limits.max_waiting_seconds = absl::ToDoubleSeconds(options.max_queue_time) *
                               static_cast<double>(options.num_workers) *
                               static_cast<double>(num_devices);
  limits.max_running_bytes = options.max_running_memory_bytes;
  limits.max_paused = kMaxPaused;
  limits.max_paused_of_client = kMaxPausedOfClient;
  return limits;
}

// What a device is called in the health service.
std::string DeviceHealthName(const std::string& device) {
  return absl::StrCat("device:", device);
}

class ServingImpl final : public Serving, private RegistryObserver {
 public:
  ServingImpl(ServingOptions options, const Engine& engine, Log& log)
      : options_(std::move(options)),
        engine_(engine),
        devices_(engine.devices()),
        log_(log),
        metrics_(options_.version, devices_),
        tracker_(metrics_),
        calls_{metrics_,
               log,
               tracker_,
               options_.max_request_time,
               options_.slow_request,
               /*tokens=*/nullptr,
               options_.rpc.connections.trusted_proxies},
        registry_(RegistryOptions()),
        loaders_({LoaderLimits(), BatchLimits(), &Clock::Real(), nullptr}),
        pool_({ComputeLimits(options_, std::ssize(devices_)), options_.batch,
               &Clock::Real(), &metrics_}),
        explanations_({engine, registry_, pool_, calls_, options_.methods,
                       options_.version, options_.max_unary_reply_bytes,
                       options_.stream}),
        models_({registry_, loaders_, calls_, options_.methods,
                 options_.architectures, options_.max_tokens}),
        inference_({explanations_, models_, registry_, calls_, options_.version,
                    [this] { return ready_.load(); }}) {}

  ~ServingImpl() override {
    poll_.reset();
    demand_.reset();
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
                                         [this] { MeasureDevices(); }));
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
    rpc.on_flood = [this](const std::string& host, int64_t unanswered) {
      metrics_.PeerBarred();
      log_.Write(LogLevel::kWarning, "peer barred for flooding",
                 {{"host", host}, {"unanswered_bytes", unanswered}});
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
    if (devices_.size() > 1 && options_.num_copies == 0) {
      demand_ =
          std::make_unique<Periodic>(kDemandLook, [this] { LookAtDemand(); });
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
          {CancelToken(),
           [this, name, one_ended](const absl::Status& status, int64_t) {
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
    if (server_ == nullptr) return;
    server_->SetServing("", true);
    for (const std::string& device : devices_) {
      server_->SetServing(DeviceHealthName(device), true);
    }
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
          {CancelToken(), [this, name](const absl::Status& status, int64_t) {
             if (!status.ok()) return;
             registry_.Load(name, [](const absl::StatusOr<ModelStatus>&) {});
           }});
    }
  }

  ModelRegistry::Options RegistryOptions() {
    ModelRegistry::Options options;
    options.repository = options_.model_repository;
    options.load = [this](const std::string& name, const VersionFolder& folder,
                          const Placement& placement) {
      return engine_.Load(name, folder.path, folder.version, placement);
    };
    options.observer = this;
    options.devices = devices_;
    options.max_resident_bytes = options_.max_resident_bytes;
    options.estimate_bytes = [this](const std::string& folder) {
      return engine_.WeightBytes(folder);
    };
    options.layer_bytes = [this](const std::string& folder) {
      return engine_.LayerBytes(folder);
    };
    options.copy = [this](const Model& model, const std::string& folder,
                          int64_t device) {
      return engine_.Copy(model, folder, device);
    };
    options.drop_copy = [this](const Model& model, int64_t device) {
      return engine_.DropCopy(model, device);
    };
    options.num_copies = std::max<int64_t>(1, options_.num_copies);
    return options;
  }

  // Models that requests have waited for all along since the last look get a
  // copy on another device, if one has nothing to do.
  void LookAtDemand() {
    std::map<std::string, double> starved = pool_.Starved();
    for (const auto& [name, seconds] : starved) {
      if (starved_.count(name) == 0) continue;
      // A refusal means that the server is going.
      (void)loaders_.Submit(
          {CancelToken(),
           [this, name = name](const absl::Status& status, int64_t) {
             // Without room it stays where it is.
             if (status.ok()) (void)registry_.AddCopy(name);
           }});
    }
    starved_ = std::move(starved);
  }

  void MeasureDevices() {
    for (size_t i = 0; i < devices_.size(); ++i) {
      const auto memory = engine_.memory(static_cast<int64_t>(i));
      if (!memory) continue;
      metrics_.SetGpuMemory(devices_[i], memory->used_bytes,
                            memory->total_bytes);
    }
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
    for (size_t i = 0; i < devices_.size(); ++i) {
      metrics_.SetResidentBytes(name, devices_[i], status->device_bytes[i]);
    }
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
      for (size_t i = 0; loaded.ok() && i < devices_.size(); ++i) {
        metrics_.WeightsCopied(devices_[i], loaded->device_bytes[i]);
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

  void OnCopied(const std::string& name, int64_t device, absl::Duration took,
                const absl::Status& status) override {
    metrics_.ModelCopied(name, devices_[device], status.code());
    LogFields fields = {{"model", name},
                        {"device", devices_[device]},
                        {"seconds", absl::ToDoubleSeconds(took)}};
    if (!status.ok()) {
      fields.emplace_back("code", CodeName(status.code()));
      fields.emplace_back("error", std::string(status.message()));
      return log_.Write(LogLevel::kWarning, "model not copied", fields);
    }
    const auto copied = registry_.Get(name);
    if (copied.ok()) {
      metrics_.WeightsCopied(devices_[device], copied->device_bytes[device]);
    }
    log_.Write(LogLevel::kInfo, "model copied", fields);
    pool_.OnModelPlaced();
  }

  void OnCopyDropped(const std::string& name, int64_t device,
                     const std::string& by) override {
    log_.Write(
        LogLevel::kInfo, "copy dropped",
        {{"model", name}, {"device", devices_[device]}, {"for_model", by}});
    OnModelChanged(name);
  }

  const ServingOptions options_;
  const Engine& engine_;
  const std::vector<std::string> devices_;
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
  // Models of which requests could have run on another device at the last look
  // of `demand_`, whose thread alone knows them.
  std::map<std::string, double> starved_;
  std::unique_ptr<Periodic> demand_;
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
