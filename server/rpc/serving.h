// SPDX-License-Identifier: Apache-2.0
//
// A whole server but for its engine and its process: registry, workers,
// metrics, services, listener, and the order in which they start and stop.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/attribution/method_spec.h"
#include "server/explain/engine.h"
#include "server/observe/log.h"
#include "server/observe/metrics.h"
#include "server/registry/model_registry.h"
#include "server/rpc/server.h"
#include "server/rpc/stream_call.h"
#include "server/schedule/worker_pool.h"

namespace limpid {

struct ServingOptions {
  std::string model_repository;
  std::vector<std::string> startup_models;  // empty: all
  RpcServerOptions rpc;
  std::optional<std::string> metrics = "127.0.0.1:0";  // none: off
  std::string version;
  int64_t num_workers = 1;  // of each device
  // Of each model, each on a device of its own; 0: as many as demand asks for.
  int64_t num_copies = 0;
  BatchLimits batch;
  int64_t max_queue_size = 256;
  int64_t max_client_queue_size = 256;
  absl::Duration max_queue_time = absl::InfiniteDuration();  // per worker
  // On one device each.
  int64_t max_running_memory_bytes = std::numeric_limits<int64_t>::max();
  int64_t max_resident_bytes = std::numeric_limits<int64_t>::max();
  // How often the repository is looked at for changed folders; infinite: on
  // request only.
  absl::Duration repository_poll = absl::InfiniteDuration();
  int64_t max_tokens = 4096;
  int64_t max_unary_reply_bytes = int64_t{64} << 20;
  absl::Duration max_request_time = absl::Seconds(600);
  absl::Duration slow_request = absl::InfiniteDuration();
  // After NOT_SERVING, before new work is refused.
  absl::Duration serving_window;
  std::string token_file;  // empty: no tokens are asked for
  StreamLimits stream;
  std::vector<MethodSpec> methods;
  std::vector<std::string> architectures;
};

// Thread-safe once started.
class Serving {
 public:
  // Opens the listeners; health says NOT_SERVING and models are unloaded.
  // `engine` and `log` outlive it. Errors: the repository can't be read, a
  // start-up model is not in it (INVALID_ARGUMENT, field "startup_models"), an
  // address can't be listened on.
  static absl::StatusOr<std::unique_ptr<Serving>> Start(ServingOptions options,
                                                        const Engine& engine,
                                                        Log& log);
  // Drains without patience. Hangs while a job ignores its cancel token.
  virtual ~Serving() = default;

  virtual const std::string& address() const = 0;
  // Empty when metrics are off.
  virtual const std::string& metrics_address() const = 0;
  virtual const std::string& health_address() const = 0;
  virtual ModelRegistry& registry() = 0;
  virtual Metrics& metrics() = 0;
  virtual WorkerPool& pool() = 0;

  // Loads the start-up models on threads of its own and calls `done` on one of
  // them when each has been loaded or has failed. Once.
  virtual void LoadModels(std::function<void()> done) = 0;
  // Health says SERVING from now on.
  virtual void SetServing() = 0;

  // NOT_SERVING, after the serving window refuses new work, lets running work
  // end until `finish_by`, cancels the rest, closes the listeners. Back soon
  // after `finish_by` unless a job ignores its token: then false, at
  // `give_up_at`, and the process can only be left without destroying this.
  virtual bool Drain(absl::Time finish_by, absl::Time give_up_at) = 0;
};

}  // namespace limpid
