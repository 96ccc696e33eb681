// SPDX-License-Identifier: Apache-2.0
//
// An engine without Torch whose costs, errors and pace are set by the test.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "server/attribution/method_spec.h"
#include "server/explain/engine.h"

namespace limpid::testing {

// A model of text with 2 layers, 4 channels and 10 token ids.
class FakeModel final : public Model {
 public:
  explicit FakeModel(const std::string& name, const Placement& placement = {});
  const ModelInfo& info() const override { return info_; }
  const DeviceSet& devices() const override { return devices_; }
  std::map<int64_t, int64_t> device_bytes() const override;
  ModelInfo& mutable_info() { return info_; }
  DeviceSet& mutable_devices() const { return devices_; }

 private:
  ModelInfo info_;
  mutable DeviceSet devices_;
};

// Explains text by one token per byte. Set the public members before requests
// come; Hold, Release, WaitForRuns and num_runs_on may be called at any time.
class FakeEngine final : public Engine {
 public:
  // By a model's name or folder: what Load returns instead of a model.
  std::map<std::string, absl::Status> load_errors;
  // Called by Load before anything else.
  std::function<void(const std::string& name)> on_load;
  // Returned by Run after the header, if it is not ok.
  absl::Status run_status;
  bool run_throws = false;
  // Elements of an extra tensor "layers.0.value" [n].
  int64_t num_extra_floats = 0;
  // How many such tensors.
  int num_extra_tensors = 1;
  std::vector<std::string> device_names = {"cpu"};
  std::optional<DeviceMemory> device_memory;
  double compute_seconds = 0;
  int64_t peak_bytes = 0;

  // Runs stop after their header until Release, or until they are cancelled.
  void Hold();
  void Release();
  // Waits until `n` runs have begun in all.
  void WaitForRuns(int n) const;
  int num_runs() const;
  int num_runs_on(int64_t device) const;
  // On the thread that made their plan.
  int num_runs_where_planned() const;
  int num_loads() const;
  // Tensors that sinks have taken in all.
  int num_tensors_taken() const;

  const std::vector<std::string>& devices() const override {
    return device_names;
  }
  std::optional<DeviceMemory> memory(int64_t) const override {
    return device_memory;
  }
  using Engine::Load;
  absl::StatusOr<std::shared_ptr<const Model>> Load(
      const std::string& name, const std::string& folder, int64_t version,
      const Placement& placement) const override;
  absl::Status Copy(const Model& model, const std::string& folder,
                    int64_t device) const override;
  bool DropCopy(const Model& model, int64_t device) const override;
  // What FakeModel says of itself.
  absl::StatusOr<int64_t> WeightBytes(const std::string&) const override {
    return FakeModel("").info().resident_bytes;
  }
  absl::StatusOr<std::vector<int64_t>> LayerBytes(
      const std::string&) const override {
    return FakeModel("").info().layer_bytes;
  }
  absl::StatusOr<std::shared_ptr<const Plan>> MakePlan(
      const ExplainRequest& request,
      std::shared_ptr<const Model> model) const override;
  using Engine::Run;
  absl::Status Run(const Plan& plan, ResultSink& sink,
                   const CancelToken& cancel, int64_t device) const override;
  // Runs the members one after the other.
  using Engine::RunBatch;
  void RunBatch(const std::vector<BatchMember>& members,
                int64_t device) const override;
  // Sizes of the batches so far.
  std::vector<int64_t> batch_sizes() const;

 private:
  absl::Status WaitForRelease(const CancelToken& cancel, int64_t device) const;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable int num_runs_ = 0;
  mutable std::map<int64_t, int> num_runs_on_;
  mutable int num_runs_where_planned_ = 0;
  mutable int num_loads_ = 0;
  mutable int num_tensors_taken_ = 0;
  mutable std::vector<int64_t> batch_sizes_;
  bool held_ = false;
};

// The methods that tests of the RPC layer know.
std::vector<MethodSpec> FakeMethods();

}  // namespace limpid::testing
