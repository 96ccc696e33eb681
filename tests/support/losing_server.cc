// SPDX-License-Identifier: Apache-2.0
//
// limpid-server with a device that is lost as soon as somebody asks for the
// method gradient-norm.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/run_server.h"

namespace limpid {
namespace {

class LosingEngine final : public Engine {
 public:
  LosingEngine(std::unique_ptr<Engine> engine,
               std::function<void(const std::string& device)> on_lost)
      : engine_(std::move(engine)), on_lost_(std::move(on_lost)) {}

  const std::vector<std::string>& devices() const override {
    return engine_->devices();
  }
  std::optional<DeviceMemory> memory(int64_t device) const override {
    return engine_->memory(device);
  }
  absl::StatusOr<std::shared_ptr<const Model>> Load(
      const std::string& name, const std::string& folder, int64_t version,
      const Placement& placement) const override {
    return engine_->Load(name, folder, version, placement);
  }
  absl::Status Copy(const Model& model, const std::string& folder,
                    int64_t device) const override {
    return engine_->Copy(model, folder, device);
  }
  bool DropCopy(const Model& model, int64_t device) const override {
    return engine_->DropCopy(model, device);
  }
  absl::StatusOr<int64_t> WeightBytes(
      const std::string& folder) const override {
    return engine_->WeightBytes(folder);
  }
  absl::StatusOr<std::vector<int64_t>> LayerBytes(
      const std::string& folder) const override {
    return engine_->LayerBytes(folder);
  }
  absl::StatusOr<std::shared_ptr<const Plan>> MakePlan(
      const ExplainRequest& request,
      std::shared_ptr<const Model> model) const override {
    return engine_->MakePlan(request, std::move(model));
  }
  absl::Status Run(const Plan& plan, ResultSink& sink,
                   const CancelToken& cancel, int64_t device) const override {
    if (plan.method() != "gradient-norm") {
      return engine_->Run(plan, sink, cancel, device);
    }
    on_lost_(devices()[device]);
    return MakeError(absl::StatusCode::kUnavailable, kDeviceLost,
                     "the device has failed");
  }
  void RunBatch(const std::vector<BatchMember>& members,
                int64_t device) const override {
    for (const BatchMember& member : members) {
      member.done(Run(*member.plan, *member.sink, member.cancel, device));
    }
  }

 private:
  const std::unique_ptr<Engine> engine_;
  const std::function<void(const std::string& device)> on_lost_;
};

}  // namespace
}  // namespace limpid

int main(int argc, char** argv) {
  return limpid::RunServer(
      std::vector<std::string>(argv + 1, argv + argc),
      [](const limpid::EngineOptions& options)
          -> absl::StatusOr<std::unique_ptr<limpid::Engine>> {
        LIMPID_ASSIGN_OR_RETURN(auto engine, limpid::Engine::Create(options));
        return std::make_unique<limpid::LosingEngine>(std::move(engine),
                                                      options.on_device_lost);
      });
}
