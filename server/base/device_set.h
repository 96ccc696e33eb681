// SPDX-License-Identifier: Apache-2.0
//
// A set of the devices that a process computes on, by index.
#pragma once

#include <atomic>
#include <cstdint>

namespace limpid {

// The most devices of one process.
inline constexpr int64_t kMaxDevices = 64;

// Thread-safe.
class DeviceSet {
 public:
  DeviceSet() = default;
  explicit DeviceSet(int64_t device) { Add(device); }

  DeviceSet(const DeviceSet& other) : bits_(other.bits_.load()) {}
  DeviceSet& operator=(const DeviceSet&) = delete;

  bool Has(int64_t device) const {
    return (bits_.load(std::memory_order_acquire) & Bit(device)) != 0;
  }
  void Add(int64_t device) { bits_.fetch_or(Bit(device)); }
  void Remove(int64_t device) { bits_.fetch_and(~Bit(device)); }

 private:
  static uint64_t Bit(int64_t device) { return uint64_t{1} << device; }

  std::atomic<uint64_t> bits_{0};
};

}  // namespace limpid
