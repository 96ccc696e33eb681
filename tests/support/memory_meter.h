// SPDX-License-Identifier: Apache-2.0
//
// What the calling thread's tensors take and give back.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <memory>

namespace limpid::testing {

class MemoryMeter final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t,
                         c10::Device) override {
    held_ += size;
    peak_ = std::max(peak_, held_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t held() const { return held_; }
  int64_t peak() const { return peak_; }

 private:
  int64_t held_ = 0;
  int64_t peak_ = 0;
};

struct MemoryUse {
  int64_t peak = 0;  // bytes
  int64_t left = 0;  // bytes that were not given back
};

template <typename Work>
MemoryUse MeasureMemory(const Work& work) {
  const auto meter = std::make_shared<MemoryMeter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  work();
  return {meter->peak(), meter->held()};
}

}  // namespace limpid::testing
