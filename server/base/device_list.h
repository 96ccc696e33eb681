// SPDX-License-Identifier: Apache-2.0
//
// The devices that a process is told to compute on, as they are written:
//   auto           all GPUs; without one the CPU
//   cpu            the CPU
//   cpu:0,1        the CPU as that many devices, with workers, budgets and
//                  copies of models of their own, as several GPUs have them
//   cuda           all GPUs
//   cuda:0,1       those GPUs
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace limpid {

struct DeviceList {
  enum class Kind { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;
  // Distinct, each below kMaxDevices; empty: none were named.
  std::vector<int64_t> indices;
};

// None if that is not how devices are written; `why` then says what is wrong.
std::optional<DeviceList> ParseDeviceList(absl::string_view text,
                                          std::string& why);

}  // namespace limpid
