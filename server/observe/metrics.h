// SPDX-License-Identifier: Apache-2.0
//
// Every metric of the server. Labels come from closed sets: models of the
// repository, listed methods, status codes; whoever calls this replaces
// anything else by kUnknown, so that no request can make a new time series.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/observe/metric_family.h"
#include "server/registry/residency_policy.h"
#include "server/schedule/worker_pool.h"

namespace limpid {

inline constexpr char kUnknown[] = "unknown";

// An explanation that has ended, as metrics see it.
struct ExplanationMetrics {
  std::string model = kUnknown;
  std::string method = kUnknown;  // attribution method
  absl::StatusCode code = absl::StatusCode::kOk;
  absl::Duration request;
  // Zero durations and counts mean that it did not get that far.
  absl::Duration queue;
  absl::Duration plan;  // for the log
  absl::Duration compute;
  absl::Duration serialize;
  absl::Duration send;         // waiting for a stream's reader; for the log
  absl::Duration first_chunk;  // streams only
  int64_t num_tokens = 0;
  int64_t reply_bytes = 0;
  // Largest of the layers; negative: none.
  double reconstruction_error = -1;
};

// Thread-safe.
class Metrics final : public PoolObserver {
 public:
  // `devices`: names, by index.
  explicit Metrics(absl::string_view version,
                   const std::vector<std::string>& devices = {"cpu"});
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // limpid_requests_total{model,method,code} and, by model,
  // limpid_{request,queue,compute,serialize}_duration_seconds,
  // limpid_time_to_first_chunk_seconds, limpid_input_tokens,
  // limpid_response_bytes, limpid_reconstruction_error_ratio.
  void ExplanationEnded(const ExplanationMetrics& explanation);

  // limpid_requests_in_flight.
  void AddInFlight(int64_t delta);
  // limpid_queue_size.
  void OnQueueSize(int64_t num_waiting) override;
  // limpid_batch_size.
  void OnBatch(int64_t size) override;
  // limpid_device_running{device}.
  void OnRunning(int64_t device, int64_t num_running) override;
  // limpid_shared_requests_total.
  void RequestShared();
  // limpid_cancelled_compute_seconds_total: spent on what nobody got.
  void ComputeWasted(absl::Duration compute);

  // limpid_model_load_duration_seconds{model,code}.
  void LoadEnded(const std::string& model, absl::Duration took,
                 absl::StatusCode code);
  // limpid_model_resident_bytes{model,device}; 0 when it is not resident.
  void SetResidentBytes(const std::string& model, const std::string& device,
                        int64_t bytes);
  // limpid_model_state{model,state}: 1 for the state that it is in, else 0.
  void SetModelState(const std::string& model, ModelState state);
  // limpid_model_evictions_total{model}.
  void ModelEvicted(const std::string& model);
  // limpid_model_copies_total{model,device,code}: further copies of a model
  // that were brought to a device, or were not.
  void ModelCopied(const std::string& model, const std::string& device,
                   absl::StatusCode code);
  // limpid_gpu_memory_{used,total}_bytes{device}: of the whole device.
  void SetGpuMemory(const std::string& device, int64_t used_bytes,
                    int64_t total_bytes);
  // limpid_weights_copied_bytes_total{device}: weights that were brought to a
  // device. Requests copy none, so it stays flat while nothing is loaded.
  void WeightsCopied(const std::string& device, int64_t bytes);

  // limpid_connections_total{result="accepted"|"refused"}.
  void ConnectionCame(bool accepted);
  // limpid_barred_peers_total.
  void PeerBarred();
  // limpid_token_reloads_total{code}.
  void TokensRead(absl::StatusCode code);

  // grpc_server_started_total, grpc_server_handled_total and
  // grpc_server_handling_seconds, with go-grpc's labels. `type` is "unary" or
  // "server_stream".
  void RpcStarted(const char* type, const char* service, const char* method);
  void RpcHandled(const char* type, const char* service, const char* method,
                  absl::StatusCode code, absl::Duration took);

  const std::shared_ptr<prometheus::Registry>& registry() const {
    return registry_;
  }

 private:
  using Counters = MetricFamily<prometheus::Counter>;
  using Gauges = MetricFamily<prometheus::Gauge>;
  using Histograms = MetricFamily<prometheus::Histogram>;

  const std::shared_ptr<prometheus::Registry> registry_;
  Counters requests_;
  Histograms request_seconds_;
  Histograms queue_seconds_;
  Histograms compute_seconds_;
  Histograms serialize_seconds_;
  Histograms first_chunk_seconds_;
  Histograms input_tokens_;
  Histograms response_bytes_;
  Histograms reconstruction_error_;
  Histograms load_seconds_;
  Gauges resident_bytes_;
  Gauges model_state_;
  Counters evictions_;
  Counters copies_;
  Gauges gpu_memory_used_, gpu_memory_total_;
  Counters weights_copied_;
  Counters rpcs_started_;
  Counters rpcs_handled_;
  Histograms rpc_seconds_;
  Counters connections_;
  prometheus::Counter& barred_peers_;
  Counters token_reloads_;
  prometheus::Gauge& in_flight_;
  prometheus::Gauge& queue_size_;
  std::vector<prometheus::Gauge*> running_;  // of each device
  prometheus::Histogram& batch_size_;
  prometheus::Counter& wasted_seconds_;
  prometheus::Counter& shared_requests_;
};

// "INVALID_ARGUMENT", and as go-grpc's metrics spell it, "InvalidArgument".
std::string CodeName(absl::StatusCode code);
std::string GoCodeName(absl::StatusCode code);

}  // namespace limpid
