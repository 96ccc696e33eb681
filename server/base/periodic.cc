// SPDX-License-Identifier: Apache-2.0
#include "server/base/periodic.h"

#include <chrono>
#include <utility>

namespace limpid {

Periodic::Periodic(absl::Duration period, std::function<void()> function)
    : period_(period),
      function_(std::move(function)),
      thread_([this] { Run(); }) {}

Periodic::~Periodic() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  ended_.notify_all();
  thread_.join();
}

void Periodic::Run() {
  while (true) {
    const auto next =
        std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(period_);
    {
      MutexLock lock(mutex_);
      while (!stop_ && lock.WaitUntil(ended_, next)) {
      }
      if (stop_) return;
    }
    function_();
  }
}

}  // namespace limpid
