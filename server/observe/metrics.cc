// SPDX-License-Identifier: Apache-2.0
#include "server/observe/metrics.h"

#include "absl/strings/ascii.h"

namespace limpid {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

const Buckets kSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                          0.1,   0.25,   0.5,   1,    2.5,   5,
                          10,    25,     50,    100,  250,   600};
const Buckets kTokens = {1,    4,    16,   64,    128,   256,    512,
                         1024, 2048, 4096, 16384, 65536, 262144, 1048576};
const Buckets kBytes = {1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20,
                        1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30};
const Buckets kBatchSizes = {1, 2, 4, 8, 16, 32, 64, 128, 256};
// Float32 gives about 1e-6; from 1e-4 on something is wrong.
const Buckets kRatios = {1e-8, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5,
                         3e-5, 1e-4, 1e-3, 1e-2, 0.1,  1};

constexpr char kAccepted[] = "accepted";
constexpr char kRefused[] = "refused";

template <typename Builder>
auto& Family(Builder builder, const char* name, const char* help,
             const std::shared_ptr<prometheus::Registry>& registry) {
  return builder.Name(name).Help(help).Register(*registry);
}

}  // namespace

std::string CodeName(absl::StatusCode code) {
  return absl::StatusCodeToString(code);
}

std::string GoCodeName(absl::StatusCode code) {
  if (code == absl::StatusCode::kOk) return "OK";
  if (code == absl::StatusCode::kCancelled) return "Canceled";
  std::string name;
  bool start = true;
  for (const char c : CodeName(code)) {
    if (c == '_') {
      start = true;
    } else {
      name += start ? c : absl::ascii_tolower(c);
      start = false;
    }
  }
  return name;
}

Metrics::Metrics(absl::string_view version,
                 const std::vector<std::string>& devices)
    : registry_(std::make_shared<prometheus::Registry>()),
      requests_(Family(BuildCounter(), "limpid_requests_total",
                       "Explanations by how they ended.", registry_),
                {"model", "method", "code"}),
      request_seconds_(
          Family(BuildHistogram(), "limpid_request_duration_seconds",
                 "From the request's arrival to the end of its reply.",
                 registry_),
          {"model"}, kSeconds),
      queue_seconds_(Family(BuildHistogram(), "limpid_queue_duration_seconds",
                            "Waiting for a worker.", registry_),
                     {"model"}, kSeconds),
      compute_seconds_(
          Family(BuildHistogram(), "limpid_compute_duration_seconds",
                 "Computing an explanation.", registry_),
          {"model"}, kSeconds),
      serialize_seconds_(
          Family(BuildHistogram(), "limpid_serialize_duration_seconds",
                 "Packing an explanation.", registry_),
          {"model"}, kSeconds),
      first_chunk_seconds_(
          Family(BuildHistogram(), "limpid_time_to_first_chunk_seconds",
                 "From a streamed request's arrival to its first piece of a "
                 "tensor.",
                 registry_),
          {"model"}, kSeconds),
      input_tokens_(
          Family(BuildHistogram(), "limpid_input_tokens",
                 "Length of explained inputs in tokens or patches.", registry_),
          {"model"}, kTokens),
      response_bytes_(Family(BuildHistogram(), "limpid_response_bytes",
                             "Bytes of a reply's messages.", registry_),
                      {"model"}, kBytes),
      reconstruction_error_(
          Family(BuildHistogram(), "limpid_reconstruction_error_ratio",
                 "Largest reconstruction residual of an explanation's layers.",
                 registry_),
          {"model"}, kRatios),
      load_seconds_(
          Family(BuildHistogram(), "limpid_model_load_duration_seconds",
                 "Loading and warming a model.", registry_),
          {"model", "code"}, kSeconds),
      resident_bytes_(Family(BuildGauge(), "limpid_model_resident_bytes",
                             "Bytes held for a model's weights.", registry_),
                      {"model", "device"}),
      model_state_(
          Family(BuildGauge(), "limpid_model_state",
                 "1 for the state that a model is in, else 0.", registry_),
          {"model", "state"}),
      evictions_(Family(BuildCounter(), "limpid_model_evictions_total",
                        "Idle models that were freed to make room.", registry_),
                 {"model"}),
      copies_(Family(BuildCounter(), "limpid_model_copies_total",
                     "Further copies of models for other devices.", registry_),
              {"model", "device", "code"}),
      gpu_memory_used_(
          Family(BuildGauge(), "limpid_gpu_memory_used_bytes",
                 "Bytes of the GPU that anybody holds.", registry_),
          {"device"}),
      gpu_memory_total_(Family(BuildGauge(), "limpid_gpu_memory_total_bytes",
                               "Bytes that the GPU has.", registry_),
                        {"device"}),
      weights_copied_(
          Family(BuildCounter(), "limpid_weights_copied_bytes_total",
                 "Bytes of weights brought to a device.", registry_),
          {"device"}),
      rpcs_started_(Family(BuildCounter(), "grpc_server_started_total",
                           "RPCs started.", registry_),
                    {"grpc_type", "grpc_service", "grpc_method"}),
      rpcs_handled_(Family(BuildCounter(), "grpc_server_handled_total",
                           "RPCs ended, by code.", registry_),
                    {"grpc_type", "grpc_service", "grpc_method", "grpc_code"}),
      rpc_seconds_(Family(BuildHistogram(), "grpc_server_handling_seconds",
                          "From an RPC's start to its end.", registry_),
                   {"grpc_type", "grpc_service", "grpc_method"}, kSeconds),
      connections_(
          Family(BuildCounter(), "limpid_connections_total",
                 "Connections to gRPC listeners; those beyond limits are "
                 "refused.",
                 registry_),
          {"result"}),
      barred_peers_(
          Family(BuildCounter(), "limpid_barred_peers_total",
                 "Times that a peer was barred for resetting streams or "
                 "flooding.",
                 registry_)
              .Add({})),
      token_reloads_(
          Family(BuildCounter(), "limpid_token_reloads_total",
                 "Changes of the token file, by how they ended.", registry_),
          {"code"}),
      in_flight_(Family(BuildGauge(), "limpid_requests_in_flight",
                        "Requests that have no reply yet.", registry_)
                     .Add({})),
      queue_size_(Family(BuildGauge(), "limpid_queue_size",
                         "Explanations that wait for a worker.", registry_)
                      .Add({})),
      batch_size_(Family(BuildHistogram(), "limpid_batch_size",
                         "Explanations that were computed together.", registry_)
                      .Add({}, kBatchSizes)),
      wasted_seconds_(
          Family(BuildCounter(), "limpid_cancelled_compute_seconds_total",
                 "Compute time of explanations that were given up.", registry_)
              .Add({})),
      shared_requests_(
          Family(BuildCounter(), "limpid_shared_requests_total",
                 "Explanations that took the reply of an identical one.",
                 registry_)
              .Add({})) {
  // There from the start, at zero.
  auto& running = Family(BuildGauge(), "limpid_device_running",
                         "Explanations that a device computes.", registry_);
  for (const std::string& device : devices) {
    running_.push_back(&running.Add({{"device", device}}));
  }
  connections_.With({kAccepted});
  connections_.With({kRefused});
  Family(BuildGauge(), "limpid_build_info", "1, labelled with the version.",
         registry_)
      .Add({{"version", std::string(version)}})
      .Set(1);
}

void Metrics::ExplanationEnded(const ExplanationMetrics& e) {
  requests_.With({e.model, e.method, CodeName(e.code)}).Increment();
  const auto seconds = [&](Histograms& family, absl::Duration took) {
    if (took > absl::ZeroDuration()) {
      family.With({e.model}).Observe(absl::ToDoubleSeconds(took));
    }
  };
  seconds(request_seconds_, e.request);
  seconds(queue_seconds_, e.queue);
  seconds(compute_seconds_, e.compute);
  seconds(serialize_seconds_, e.serialize);
  seconds(first_chunk_seconds_, e.first_chunk);
  if (e.num_tokens > 0) {
    input_tokens_.With({e.model}).Observe(static_cast<double>(e.num_tokens));
  }
  if (e.reply_bytes > 0) {
    response_bytes_.With({e.model}).Observe(static_cast<double>(e.reply_bytes));
  }
  if (e.reconstruction_error >= 0) {
    reconstruction_error_.With({e.model}).Observe(e.reconstruction_error);
  }
}

void Metrics::AddInFlight(int64_t delta) {
  in_flight_.Increment(static_cast<double>(delta));
}

void Metrics::OnQueueSize(int64_t num_waiting) {
  queue_size_.Set(static_cast<double>(num_waiting));
}

void Metrics::OnBatch(int64_t size) {
  batch_size_.Observe(static_cast<double>(size));
}

void Metrics::OnRunning(int64_t device, int64_t num_running) {
  running_[device]->Set(static_cast<double>(num_running));
}

void Metrics::RequestShared() { shared_requests_.Increment(); }

void Metrics::ComputeWasted(absl::Duration compute) {
  wasted_seconds_.Increment(absl::ToDoubleSeconds(compute));
}

void Metrics::LoadEnded(const std::string& model, absl::Duration took,
                        absl::StatusCode code) {
  load_seconds_.With({model, CodeName(code)})
      .Observe(absl::ToDoubleSeconds(took));
}

void Metrics::SetResidentBytes(const std::string& model,
                               const std::string& device, int64_t bytes) {
  resident_bytes_.With({model, device}).Set(static_cast<double>(bytes));
}

void Metrics::SetModelState(const std::string& model, ModelState state) {
  for (const ModelState one :
       {ModelState::kUnloaded, ModelState::kLoading, ModelState::kReady,
        ModelState::kUnloading, ModelState::kFailed}) {
    model_state_.With({model, StateName(one)}).Set(one == state ? 1 : 0);
  }
}

void Metrics::ModelEvicted(const std::string& model) {
  evictions_.With({model}).Increment();
}

void Metrics::ModelCopied(const std::string& model, const std::string& device,
                          absl::StatusCode code) {
  copies_.With({model, device, CodeName(code)}).Increment();
}

void Metrics::SetGpuMemory(const std::string& device, int64_t used_bytes,
                           int64_t total_bytes) {
  gpu_memory_used_.With({device}).Set(static_cast<double>(used_bytes));
  gpu_memory_total_.With({device}).Set(static_cast<double>(total_bytes));
}

void Metrics::WeightsCopied(const std::string& device, int64_t bytes) {
  weights_copied_.With({device}).Increment(static_cast<double>(bytes));
}

void Metrics::ConnectionCame(bool accepted) {
  connections_.With({accepted ? kAccepted : kRefused}).Increment();
}

void Metrics::PeerBarred() { barred_peers_.Increment(); }

void Metrics::TokensRead(absl::StatusCode code) {
  token_reloads_.With({CodeName(code)}).Increment();
}

void Metrics::RpcStarted(const char* type, const char* service,
                         const char* method) {
  rpcs_started_.With({type, service, method}).Increment();
}

void Metrics::RpcHandled(const char* type, const char* service,
                         const char* method, absl::StatusCode code,
                         absl::Duration took) {
  rpcs_handled_.With({type, service, method, GoCodeName(code)}).Increment();
  rpc_seconds_.With({type, service, method})
      .Observe(absl::ToDoubleSeconds(took));
}

}  // namespace limpid
