// SPDX-License-Identifier: Apache-2.0
//
// Calls a function again and again on a thread of its own.
#pragma once

#include <condition_variable>
#include <functional>
#include <thread>

#include "absl/time/time.h"
#include "server/base/mutex.h"

namespace limpid {

class Periodic {
 public:
  // First after `period`, then `period` after the end of the last call.
  // `function` must not throw.
  Periodic(absl::Duration period, std::function<void()> function);
  // Waits for a call that is under way, but not for a period.
  ~Periodic();
  Periodic(const Periodic&) = delete;
  Periodic& operator=(const Periodic&) = delete;

 private:
  void Run();

  const absl::Duration period_;
  const std::function<void()> function_;
  Mutex mutex_;
  std::condition_variable ended_;
  bool stop_ LIMPID_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace limpid
