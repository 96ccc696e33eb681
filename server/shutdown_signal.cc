// SPDX-License-Identifier: Apache-2.0
#include "server/shutdown_signal.h"

#include <cstdlib>

#include "absl/time/clock.h"

namespace limpid {
namespace {

constexpr int kSignalled = 128;  // as shells count

}  // namespace

ShutdownSignal::ShutdownSignal() {
  std::signal(SIGPIPE, SIG_IGN);
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGINT);
  sigaddset(&signals_, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  std::thread([this] { Take(); }).detach();
}

void ShutdownSignal::Take() {
  for (bool first = true;; first = false) {
    int number = 0;
    if (sigwait(&signals_, &number) != 0) continue;
    if (!first) std::_Exit(kSignalled + number);
    {
      MutexLock lock(mutex_);
      signalled_ = true;
    }
    changed_.notify_all();
  }
}

void ShutdownSignal::Wake() {
  {
    MutexLock lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

bool ShutdownSignal::Wait() {
  MutexLock lock(mutex_);
  while (!signalled_ && !woken_) lock.Wait(changed_);
  woken_ = false;
  return signalled_;
}

void ShutdownSignal::ExitAt(absl::Time limit, int status) {
  std::thread([limit, status] {
    absl::SleepFor(limit - absl::Now());
    std::_Exit(status);
  }).detach();
}

}  // namespace limpid
