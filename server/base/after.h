// SPDX-License-Identifier: Apache-2.0
//
// Something that is done at a certain time, unless it is called off before.
#pragma once

#include <condition_variable>
#include <functional>
#include <thread>

#include "absl/time/time.h"
#include "server/base/mutex.h"

namespace limpid {

// A thread of its own waits for the time.
class After {
 public:
  After(absl::Time when, std::function<void()> function);
  // Calls it off; waits while it is being done.
  ~After();
  After(const After&) = delete;
  After& operator=(const After&) = delete;

 private:
  void Run();

  const absl::Time when_;
  const std::function<void()> function_;
  Mutex mutex_;
  std::condition_variable changed_;
  bool off_ LIMPID_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace limpid
