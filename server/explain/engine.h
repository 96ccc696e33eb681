// SPDX-License-Identifier: Apache-2.0
//
// The use case: load a model, plan an explanation, run it. The only door
// between the RPC layer and everything that knows Torch.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/explain/request.h"
#include "server/explain/result.h"
#include "server/models/model.h"

namespace limpid {

// The reason of what a device that has failed could not do.
inline constexpr char kDeviceLost[] = "DEVICE_LOST";

// What one process may use.
struct EngineOptions {
  std::string device = "auto";  // as server/base/device_list.h
  // Told once if a device has failed for good, from any thread: the process can
  // then no longer do its work and has to be started again. Until it has, all
  // runs end UNAVAILABLE, reason DEVICE_LOST.
  std::function<void(const std::string& device)> on_device_lost = nullptr;
  int64_t threads_per_worker = 1;
  int64_t max_tokens = 4096;
  int64_t max_request_memory_bytes = int64_t{8} << 30;
};

// Of a GPU, whoever holds it.
struct DeviceMemory {
  int64_t used_bytes = 0;
  int64_t total_bytes = 0;
};

// A request that was found valid for a model, with what it costs. Holds a lease
// on the model. Immutable.
class Plan {
 public:
  virtual ~Plan() = default;
  virtual const Model& model() const = 0;
  virtual const std::string& method() const = 0;
  virtual const Cost& cost() const = 0;
  virtual int64_t num_tokens() const = 0;
  // Of the same model and precision the same, so that they can run as a batch;
  // null: too little of its work is the forward pass that a batch shares.
  virtual const void* batch_group() const = 0;
};

// A request that runs in a batch. What is pointed to outlives `done`.
struct BatchMember {
  const Plan* plan = nullptr;
  ResultSink* sink = nullptr;
  CancelToken cancel;
  // Told once how it ended, as soon as it has. Must not throw.
  std::function<void(const absl::Status& status)> done;
};

// Thread-safe: any number of threads may plan and run at the same time.
class Engine {
 public:
  // FAILED_PRECONDITION, reason DEVICE_UNAVAILABLE, if the device is not there;
  // INVALID_ARGUMENT, field "device", if it is not a device's name.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      const EngineOptions& options);
  virtual ~Engine() = default;

  // Names of the devices in use, for example "cpu" or "cuda:0"; elsewhere they
  // are known by their index here.
  virtual const std::vector<std::string>& devices() const = 0;
  // Of a device; none on the CPU, or where the device does not say.
  virtual std::optional<DeviceMemory> memory(int64_t device) const = 0;

  // Reads a model folder onto the devices of `placement` and runs the model
  // once on a few tokens. `version` is what the model says of itself. Errors
  // name file and tensor (DATA_LOSS) or say what is not known
  // (FAILED_PRECONDITION, reason ARCHITECTURE_UNKNOWN).
  virtual absl::StatusOr<std::shared_ptr<const Model>> Load(
      const std::string& name, const std::string& folder, int64_t version,
      const Placement& placement) const = 0;
  // Of a folder without versions, onto the first device.
  absl::StatusOr<std::shared_ptr<const Model>> Load(
      const std::string& name, const std::string& folder) const {
    return Load(name, folder, /*version=*/0, Placement());
  }

  // Brings a copy of a model of this engine to a device that has none, from the
  // folder that it was read from. FAILED_PRECONDITION, reason MODEL_CHANGED, if
  // that holds other files now; else errors as Load.
  virtual absl::Status Copy(const Model& model, const std::string& folder,
                            int64_t device) const = 0;
  // Frees what Copy has brought to a device; false if it is in use.
  virtual bool DropCopy(const Model& model, int64_t device) const = 0;

  // Bytes of the weights once they are loaded, from the files' headers alone.
  // Errors as Load.
  virtual absl::StatusOr<int64_t> WeightBytes(
      const std::string& folder) const = 0;
  // Of these, each layer's.
  virtual absl::StatusOr<std::vector<int64_t>> LayerBytes(
      const std::string& folder) const = 0;

  // Checks a request against the model: INVALID_ARGUMENT with every wrong field
  // at once, else FAILED_PRECONDITION where the model does not offer what was
  // asked (METHOD_NOT_SUPPORTED_BY_ARCHITECTURE, FORM_NOT_SUPPORTED_BY_
  // ARCHITECTURE, WRONG_MODALITY, TOKENIZER_MISSING, REQUEST_TOO_LARGE).
  // `model` must come from Load of this engine.
  virtual absl::StatusOr<std::shared_ptr<const Plan>> MakePlan(
      const ExplainRequest& request,
      std::shared_ptr<const Model> model) const = 0;

  // Runs a plan of this engine on the calling thread and on `device`, or where
  // the model is if it has no part there. CANCELLED or DEADLINE_EXCEEDED within
  // one slab of attention of the token's change.
  virtual absl::Status Run(const Plan& plan, ResultSink& sink,
                           const CancelToken& cancel, int64_t device) const = 0;
  absl::Status Run(const Plan& plan, ResultSink& sink,
                   const CancelToken& cancel) const {
    return Run(plan, sink, cancel, /*device=*/0);
  }

  // Runs plans of one batch_group, or a single one, together on the calling
  // thread and on `device`, as Run: one forward pass for all of them, and the
  // rest of each by itself, in their order. Results are those of Run. A member
  // that is cancelled, fails or is refused by its sink leaves without
  // disturbing the others. What does not fit in memory together is tried again
  // in halves, of which a single one that does not fit is refused:
  // RESOURCE_EXHAUSTED, reason OUT_OF_MEMORY.
  virtual void RunBatch(const std::vector<BatchMember>& members,
                        int64_t device) const = 0;
  void RunBatch(const std::vector<BatchMember>& members) const {
    RunBatch(members, /*device=*/0);
  }
};

}  // namespace limpid
