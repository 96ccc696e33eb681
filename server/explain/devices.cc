// SPDX-License-Identifier: Apache-2.0
#include "server/explain/devices.h"

#ifdef LIMPID_WITH_CUDA
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#endif

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/device_list.h"

namespace limpid {
namespace {

int64_t NumGpus() {
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

#ifdef LIMPID_WITH_CUDA
// Calls `work` with a GPU as the thread's current one; the error of getting
// there, or of `work`. c10's guards throw where a device has failed.
template <typename Work>
cudaError_t OnGpu(c10::Device device, const Work& work) {
  int before = 0;
  cudaError_t error = cudaGetDevice(&before);
  if (error != cudaSuccess) return error;
  error = cudaSetDevice(device.index());
  if (error == cudaSuccess) error = work();
  (void)cudaSetDevice(before);
  return error;
}
#endif

// Whether a device has failed for good: every call says so from then on, while
// other errors are told once.
bool IsLost(c10::Device device) {
#ifdef LIMPID_WITH_CUDA
  if (device.is_cuda()) {
    (void)OnGpu(device, cudaDeviceSynchronize);
    return OnGpu(device, cudaDeviceSynchronize) != cudaSuccess;
  }
#endif
  return false;
}

}  // namespace

absl::StatusOr<std::vector<ComputeDevice>> ChooseDevices(
    const std::string& text) {
  std::string why;
  const auto list = ParseDeviceList(text, why);
  if (!list) {
    Violations violations;
    violations.Add("device", absl::StrCat("\"", text, "\" ", why));
    return violations.ToStatus("INVALID_CONFIGURATION");
  }
  const int64_t count = NumGpus();
  std::vector<ComputeDevice> devices;
  if (list->kind == DeviceList::Kind::kCpu ||
      (list->kind == DeviceList::Kind::kAuto && count == 0)) {
    for (const int64_t index : list->indices) {
      devices.push_back({c10::Device(c10::kCPU), absl::StrCat("cpu:", index)});
    }
    if (devices.empty()) devices.push_back({c10::Device(c10::kCPU), "cpu"});
    return devices;
  }
  std::vector<int64_t> indices = list->indices;
  if (indices.empty()) {
    indices.resize(std::max<int64_t>(1, count));
    std::iota(indices.begin(), indices.end(), 0);
  }
  for (const int64_t index : indices) {
    if (index < count) {
      const c10::Device device(c10::kCUDA,
                               static_cast<c10::DeviceIndex>(index));
      devices.push_back({device, device.str()});
      continue;
    }
#ifdef LIMPID_WITH_CUDA
    return NoDevice(absl::StrCat("device cuda:", index, " is not there: ",
                                 count, " CUDA devices were found"));
#else
    return NoDevice(absl::StrCat("device cuda:", index,
                                 " is not there: this build is for the CPU "
                                 "only"));
#endif
  }
  return devices;
}

Devices::Devices(std::vector<ComputeDevice> devices,
                 std::function<void(const std::string& device)> on_lost)
    : devices_(std::move(devices)), on_lost_(std::move(on_lost)) {
  for (const ComputeDevice& one : devices_) {
    names_.push_back(one.name);
    streams_.push_back(std::make_unique<DeviceStreams>(one.device));
  }
}

std::optional<DeviceMemory> Devices::Memory(int64_t index) const {
#ifdef LIMPID_WITH_CUDA
  const c10::Device device = devices_[index].device;
  size_t free = 0, total = 0;
  if (device.is_cuda() && Check().ok() &&
      OnGpu(device, [&] { return cudaMemGetInfo(&free, &total); }) ==
          cudaSuccess) {
    return DeviceMemory{static_cast<int64_t>(total - free),
                        static_cast<int64_t>(total)};
  }
#else
  (void)index;
#endif
  return std::nullopt;
}

absl::Status Devices::Check() const {
  const int64_t lost = lost_.load();
  if (lost < 0) return absl::OkStatus();
  ErrorDetails details;
  details.reason = kDeviceLost;
  details.metadata["device"] = names_[lost];
  details.retry_after = absl::Seconds(1);
  return MakeError(absl::StatusCode::kUnavailable,
                   absl::StrCat("the device ", names_[lost],
                                " has failed and the server is restarting; "
                                "try another one, or again"),
                   std::move(details));
}

absl::Status Devices::Explain(const absl::Status& status,
                              const std::vector<int64_t>& indices) const {
  if (!absl::IsInternal(status)) return status;
  for (const int64_t index : indices) {
    if (!IsLost(devices_[index].device)) continue;
    int64_t none = -1;
    if (lost_.compare_exchange_strong(none, index) && on_lost_) {
      on_lost_(names_[index]);
    }
    return Check();
  }
  return status;
}

}  // namespace limpid
