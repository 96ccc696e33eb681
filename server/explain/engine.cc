// SPDX-License-Identifier: Apache-2.0
#include "server/explain/engine.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <array>
#include <atomic>

#include "server/explain/batch.h"
#include "server/explain/devices.h"
#include "server/explain/plan.h"
#include "server/explain/servable.h"
#include "server/models/torch_seam.h"

namespace limpid {
namespace {

const Servable& ServableOf(const Model& model) {
  return static_cast<const Servable&>(model);
}

class TorchEngine final : public Engine {
 public:
  TorchEngine(const EngineOptions& options, std::vector<ComputeDevice> devices)
      : options_(options),
        devices_(std::move(devices), options.on_device_lost) {
    // First guesses, replaced by what is seen; hopeful, since requests are
    // refused by them.
    for (auto& speed : flops_per_second_) {
      speed = devices_.at(0).is_cpu() ? 5e10 : 1e13;
    }
  }

  const std::vector<std::string>& devices() const override {
    return devices_.names();
  }
  std::optional<DeviceMemory> memory(int64_t device) const override {
    return devices_.Memory(device);
  }

  using Engine::Load;
  absl::StatusOr<std::shared_ptr<const Model>> Load(
      const std::string& name, const std::string& folder, int64_t version,
      const Placement& placement) const override {
    absl::StatusOr<std::shared_ptr<const Model>> model =
        absl::UnknownError("not loaded");
    LIMPID_RETURN_IF_ERROR(OnDevices(placement, [&]() -> absl::Status {
      LIMPID_ASSIGN_OR_RETURN(
          model, LoadServable(name, folder, version, placement, devices_));
      return absl::OkStatus();
    }));
    return model;
  }

  absl::Status Copy(const Model& model, const std::string& folder,
                    int64_t device) const override {
    return OnDevices(Placement::On(device), [&] {
      return CopyServable(ServableOf(model), folder, device, devices_);
    });
  }
  bool DropCopy(const Model& model, int64_t device) const override {
    return ServableOf(model).DropCopy(device);
  }

  absl::StatusOr<int64_t> WeightBytes(
      const std::string& folder) const override {
    return WeightBytesOf(folder);
  }
  absl::StatusOr<std::vector<int64_t>> LayerBytes(
      const std::string& folder) const override {
    absl::StatusOr<std::vector<int64_t>> bytes = absl::UnknownError("not read");
    LIMPID_RETURN_IF_ERROR(CatchTorch([&] {
      bytes = LayerBytesOf(folder);
      return bytes.status();
    }));
    return bytes;
  }

  absl::StatusOr<std::shared_ptr<const Plan>> MakePlan(
      const ExplainRequest& request,
      std::shared_ptr<const Model> model) const override {
    return ExplanationPlan::Make(
        request, std::static_pointer_cast<const Servable>(std::move(model)),
        options_, SpeedIn(request.precision).load(std::memory_order_relaxed));
  }

  using Engine::Run;
  absl::Status Run(const Plan& plan, ResultSink& sink,
                   const CancelToken& cancel, int64_t device) const override {
    absl::Status result;
    RunBatch({{&plan, &sink, cancel,
               [&result](const absl::Status& status) { result = status; }}},
             device);
    return result;
  }

  using Engine::RunBatch;
  void RunBatch(const std::vector<BatchMember>& members,
                int64_t device) const override {
    const absl::Time start = absl::Now();
    const c10::NoGradGuard no_gradients;
    const Precision precision =
        static_cast<const ExplanationPlan&>(*members.front().plan)
            .request()
            .precision;
    const ModelCopy copy =
        ServableOf(members.front().plan->model()).CopyOn(device);
    const std::vector<int64_t> indices = DevicesOf(copy.placement);
    std::vector<std::unique_ptr<DeviceStreams::Lent>> streams;
    absl::Status ready = devices_.Check();
    if (ready.ok()) {
      ready = CatchTorch([&] {
        at::set_num_threads(static_cast<int>(options_.threads_per_worker));
        // The first device is where most of the work is, so it comes last and
        // is the thread's current one.
        for (auto index = indices.rbegin(); index != indices.rend(); ++index) {
          streams.push_back(
              std::make_unique<DeviceStreams::Lent>(devices_.streams(*index)));
        }
        return absl::OkStatus();
      });
    }
    double flops = 0;
    bool all_ok = true;
    if (ready.ok()) {
      RunMembers(copy, members,
                 [&](const ExplanationPlan& plan, const absl::Status& status) {
                   // Who hears of the end may give the model back.
                   for (const auto& stream : streams) stream->Wait();
                   flops += plan.cost().flops;
                   all_ok = all_ok && status.ok();
                   return devices_.Explain(status, indices);
                 });
    } else {
      for (const BatchMember& member : members) {
        member.done(devices_.Explain(ready, indices));
      }
    }
    while (!streams.empty()) streams.pop_back();
    // Of work that was given up nobody knows how much was done.
    if (ready.ok() && all_ok) {
      Learn(flops, absl::Now() - start, SpeedIn(precision));
    }
  }

 private:
  // Calls `work`, which reads weights onto the devices of `placement`.
  absl::Status OnDevices(const Placement& placement,
                         const std::function<absl::Status()>& work) const {
    LIMPID_RETURN_IF_ERROR(devices_.Check());
    const c10::NoGradGuard no_gradients;
    return devices_.Explain(CatchTorch(work), DevicesOf(placement));
  }

  std::atomic<double>& SpeedIn(Precision precision) const {
    return flops_per_second_[static_cast<size_t>(precision)];
  }

  // Moves the estimate of speed a little towards what was seen. Short requests
  // are mostly overhead and say nothing about long ones. Lost updates of
  // concurrent requests do no harm.
  static void Learn(double flops, absl::Duration time,
                    std::atomic<double>& speed) {
    constexpr absl::Duration kShortest = absl::Milliseconds(50);
    if (time < kShortest) return;
    const double seconds = absl::ToDoubleSeconds(time);
    constexpr double kShare = 0.2;
    const double old = speed.load(std::memory_order_relaxed);
    speed.store(old + kShare * (flops / seconds - old),
                std::memory_order_relaxed);
  }

  const EngineOptions options_;
  const Devices devices_;
  // By precision.
  mutable std::array<std::atomic<double>, 3> flops_per_second_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const EngineOptions& options) {
  LIMPID_ASSIGN_OR_RETURN(std::vector<ComputeDevice> devices,
                          ChooseDevices(options.device));
  // Float32 means float32: TF32 would lose three digits of every product.
  at::globalContext().setAllowTF32CuBLAS(false);
  return std::make_unique<TorchEngine>(options, std::move(devices));
}

}  // namespace limpid
