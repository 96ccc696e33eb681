// SPDX-License-Identifier: Apache-2.0
#include "server/base/after.h"

#include <utility>

namespace limpid {

After::After(absl::Time when, std::function<void()> function)
    : when_(when), function_(std::move(function)), thread_([this] { Run(); }) {}

After::~After() {
  {
    MutexLock lock(mutex_);
    off_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void After::Run() {
  {
    MutexLock lock(mutex_);
    while (!off_ && lock.WaitUntil(changed_, absl::ToChronoTime(when_))) {
    }
    if (off_) return;
  }
  function_();
}

}  // namespace limpid
