// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/measure.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/version.h>

#ifdef LIMPID_WITH_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#endif

#include <algorithm>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

namespace limpid::bench {
namespace {

void Wait(at::Device device) {
#ifdef LIMPID_WITH_CUDA
  if (device.is_cuda()) c10::cuda::device_synchronize();
#endif
}

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    absl::string_view rest = line;
    if (absl::ConsumePrefix(&rest, "model name\t: ")) return std::string(rest);
  }
  return "unknown";
}

}  // namespace

Times Measure(at::Device device, int repeats,
              const std::function<void()>& work) {
  work();
  work();
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    Wait(device);
    const absl::Time start = absl::Now();
    work();
    Wait(device);
    times.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

Roofline ProbeRoofline(at::Device device) {
  const at::TensorOptions float32 = at::TensorOptions(device).dtype(at::kFloat);
  const int64_t numbers = int64_t{1} << (device.is_cuda() ? 28 : 26);
  const at::Tensor from = at::rand({numbers}, float32);
  at::Tensor to = at::empty_like(from);
  const int64_t side = device.is_cuda() ? 8192 : 2048;
  const at::Tensor a = at::rand({side, side}, float32);
  const at::Tensor b = at::rand({side, side}, float32);
  const auto products_per_second = [&](const at::Tensor& left,
                                       const at::Tensor& right) {
    at::Tensor product = at::empty_like(left);
    return 1e3 /
           Measure(device, 5, [&] { at::mm_out(product, left, right); }).median;
  };
  const double flops = 2.0 * side * side * side;
  Roofline out;
  out.bytes_per_second =
      8.0 * numbers / Measure(device, 10, [&] { to.copy_(from); }).median * 1e3;
  out.flops_per_second = flops * products_per_second(a, b);
  if (device.is_cuda()) {
    out.tensor_flops_per_second =
        flops * products_per_second(a.to(at::kHalf), b.to(at::kHalf));
  }
  return out;
}

int64_t PeakBytes([[maybe_unused]] at::Device device,
                  [[maybe_unused]] const std::function<void()>& work) {
#ifdef LIMPID_WITH_CUDA
  namespace allocator = c10::cuda::CUDACachingAllocator;
  if (device.is_cuda()) {
    constexpr auto kAll =
        static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    Wait(device);
    allocator::resetPeakStats(device.index());
    const int64_t before =
        allocator::getDeviceStats(device.index()).allocated_bytes[kAll].current;
    work();
    Wait(device);
    return allocator::getDeviceStats(device.index())
               .allocated_bytes[kAll]
               .peak -
           before;
  }
#endif
  return 0;
}

std::string DescribeDevice(at::Device device) {
  std::string name = ProcessorName();
  std::string driver;
#ifdef LIMPID_WITH_CUDA
  if (device.is_cuda()) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, device.index()) == cudaSuccess) {
      name = properties.name;
    }
    int version = 0;
    cudaDriverGetVersion(&version);
    driver = absl::StrCat(", \"cuda_driver\": ", version);
  }
#endif
  return absl::StrCat("\"device\": \"", name,
                      "\", \"threads\": ", at::get_num_threads(),
                      ", \"torch\": \"", TORCH_VERSION, "\"", driver);
}

}  // namespace limpid::bench
