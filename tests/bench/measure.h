// SPDX-License-Identifier: Apache-2.0
//
// Timing, and what the machine could do at best, in the same run.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

namespace limpid::bench {

// Milliseconds.
struct Times {
  double median = 0;
  double least = 0;
  double most = 0;
};

// Times `work` after warm-up, at least `repeats` times. The device is waited
// for before and after each, so launches count.
Times Measure(at::Device device, int repeats,
              const std::function<void()>& work);

// Measured by probes of its own.
struct Roofline {
  double bytes_per_second = 0;  // copied, read plus written
  double flops_per_second = 0;  // float32 product of matrices, no TF32
  // Float16 product on tensor cores; 0: a CPU.
  double tensor_flops_per_second = 0;
};
Roofline ProbeRoofline(at::Device device);

// The most that one run of `work` holds beside what is allocated before it, in
// bytes; a GPU's, 0 for a CPU.
int64_t PeakBytes(at::Device device, const std::function<void()>& work);

// Of device, driver and libraries, as JSON fields.
std::string DescribeDevice(at::Device device);

}  // namespace limpid::bench
