// SPDX-License-Identifier: Apache-2.0
//
// The devices of an engine: which there are, what they hold, whether they still
// work, and streams for their runs.
#pragma once

#include <c10/core/Device.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/explain/device_streams.h"
#include "server/explain/engine.h"

namespace limpid {

// A device as the rest of the program knows it.
struct ComputeDevice {
  c10::Device device;
  std::string name;  // "cpu", "cpu:1" or "cuda:0"
};

// Errors as Engine::Create.
absl::StatusOr<std::vector<ComputeDevice>> ChooseDevices(
    const std::string& list);

// Thread-safe.
class Devices {
 public:
  Devices(std::vector<ComputeDevice> devices,
          std::function<void(const std::string& device)> on_lost);

  const std::vector<std::string>& names() const { return names_; }
  c10::Device at(int64_t index) const { return devices_[index].device; }
  DeviceStreams& streams(int64_t index) const { return *streams_[index]; }

  // None on the CPU, or where the device does not say.
  std::optional<DeviceMemory> Memory(int64_t index) const;

  // UNAVAILABLE, reason DEVICE_LOST, once a device has been found lost: a GPU
  // whose context has failed takes no more work from this process.
  absl::Status Check() const;
  // What `status`, with which work on these devices has ended, means. If it is
  // our own fault it may be because a device was lost: then as Check, and the
  // first to find that out tells `on_lost`.
  absl::Status Explain(const absl::Status& status,
                       const std::vector<int64_t>& indices) const;

 private:
  const std::vector<ComputeDevice> devices_;
  std::vector<std::string> names_;
  std::vector<std::unique_ptr<DeviceStreams>> streams_;
  const std::function<void(const std::string& device)> on_lost_;
  // Index of the one that was lost; negative: none.
  mutable std::atomic<int64_t> lost_{-1};
};

}  // namespace limpid
