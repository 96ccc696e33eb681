// SPDX-License-Identifier: Apache-2.0
#include "server/explain/engine.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#ifdef LIMPID_WITH_CUDA
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#endif

#include <atomic>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/explain/batch.h"
#include "server/explain/device_streams.h"
#include "server/explain/plan.h"
#include "server/explain/servable.h"
#include "server/models/torch_seam.h"

namespace limpid {
namespace {

int NumGpus() {
#ifdef LIMPID_WITH_CUDA
  return c10::cuda::device_count();
#else
  return 0;
#endif
}

absl::Status NoDevice(const std::string& message) {
  ErrorDetails details;
  details.reason = "DEVICE_UNAVAILABLE";
  return MakeError(absl::StatusCode::kFailedPrecondition, message, details);
}

absl::StatusOr<at::Device> ChooseDevice(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  const bool automatic = name == "auto";
  absl::string_view rest = name;
  int index = 0;
  if (!automatic && name != "cuda" &&
      (!absl::ConsumePrefix(&rest, "cuda:") ||
       !absl::SimpleAtoi(rest, &index) || index < 0)) {
    Violations violations;
    violations.Add("device", absl::StrCat("\"", name,
                                          "\" is not a device; known: auto, "
                                          "cpu, cuda, cuda:N"));
    return violations.ToStatus("INVALID_CONFIGURATION");
  }
  const int count = NumGpus();
  if (index < count) {
    return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
  }
  if (automatic) return at::Device(at::kCPU);
#ifdef LIMPID_WITH_CUDA
  return NoDevice(absl::StrCat("device ", name, " is not there: ", count,
                               " CUDA devices were found"));
#else
  return NoDevice(absl::StrCat(
      "device ", name, " is not there: this build is for the CPU only"));
#endif
}

std::optional<DeviceMemory> MemoryOf(at::Device device) {
#ifdef LIMPID_WITH_CUDA
  if (device.is_cuda()) {
    const c10::cuda::CUDAGuard guard(device);
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) return std::nullopt;
    return DeviceMemory{static_cast<int64_t>(total - free),
                        static_cast<int64_t>(total)};
  }
#endif
  return std::nullopt;
}

class TorchEngine final : public Engine {
 public:
  TorchEngine(const EngineOptions& options, at::Device device)
      : options_(options),
        build_{device, at::kFloat},
        name_(device.str()),
        streams_(device) {
    // First guesses, replaced by what is seen; hopeful, since requests are
    // refused by them.
    flops_per_second_ = device.is_cpu() ? 5e10 : 1e13;
  }

  const std::string& device() const override { return name_; }
  std::optional<DeviceMemory> memory() const override {
    return MemoryOf(build_.device);
  }

  using Engine::Load;
  absl::StatusOr<std::shared_ptr<const Model>> Load(
      const std::string& name, const std::string& folder,
      int64_t version) const override {
    absl::StatusOr<std::shared_ptr<const Model>> model =
        absl::UnknownError("not loaded");
    LIMPID_RETURN_IF_ERROR(CatchTorch([&] {
      const c10::NoGradGuard no_gradients;
      model = LoadServable(name, folder, version, build_);
      streams_.WaitForCurrent();
      return absl::OkStatus();
    }));
    return model;
  }

  absl::StatusOr<int64_t> WeightBytes(
      const std::string& folder) const override {
    return WeightBytesOf(folder, build_);
  }

  absl::StatusOr<std::shared_ptr<const Plan>> MakePlan(
      const ExplainRequest& request,
      std::shared_ptr<const Model> model) const override {
    return ExplanationPlan::Make(
        request, std::static_pointer_cast<const Servable>(std::move(model)),
        options_, flops_per_second_.load(std::memory_order_relaxed));
  }

  absl::Status Run(const Plan& plan, ResultSink& sink,
                   const CancelToken& cancel) const override {
    absl::Status result;
    RunBatch({{&plan, &sink, cancel,
               [&result](const absl::Status& status) { result = status; }}});
    return result;
  }

  void RunBatch(const std::vector<BatchMember>& members) const override {
    const absl::Time start = absl::Now();
    const c10::NoGradGuard no_gradients;
    std::optional<DeviceStreams::Lent> stream;
    const absl::Status ready = CatchTorch([&] {
      at::set_num_threads(static_cast<int>(options_.threads_per_worker));
      stream.emplace(streams_);
      return absl::OkStatus();
    });
    if (!ready.ok()) {
      for (const BatchMember& member : members) member.done(ready);
      return;
    }
    double flops = 0;
    bool all_ok = true;
    RunMembers(members,
               [&](const ExplanationPlan& plan, const absl::Status& status) {
                 // Who hears of the end may give the model back.
                 stream->Wait();
                 flops += plan.cost().flops;
                 all_ok = all_ok && status.ok();
               });
    // Of work that was given up nobody knows how much was done.
    if (all_ok) Learn(flops, absl::Now() - start);
  }

 private:
  // Moves the estimate of speed a little towards what was seen. Short requests
  // are mostly overhead and say nothing about long ones. Lost updates of
  // concurrent requests do no harm.
  void Learn(double flops, absl::Duration time) const {
    constexpr absl::Duration kShortest = absl::Milliseconds(50);
    if (time < kShortest) return;
    const double seconds = absl::ToDoubleSeconds(time);
    constexpr double kShare = 0.2;
    const double old = flops_per_second_.load(std::memory_order_relaxed);
    flops_per_second_.store(old + kShare * (flops / seconds - old),
                            std::memory_order_relaxed);
  }

  const EngineOptions options_;
  const BuildOptions build_;
  const std::string name_;
  mutable DeviceStreams streams_;
  mutable std::atomic<double> flops_per_second_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const EngineOptions& options) {
  LIMPID_ASSIGN_OR_RETURN(const at::Device device,
                          ChooseDevice(options.device));
  // Float32 means float32: TF32 would lose three digits of every product.
  at::globalContext().setAllowTF32CuBLAS(false);
  return std::make_unique<TorchEngine>(options, device);
}

}  // namespace limpid
