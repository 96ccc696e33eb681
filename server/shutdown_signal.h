// SPDX-License-Identifier: Apache-2.0
//
// SIGINT and SIGTERM as something that can be waited for.
#pragma once

#include <csignal>
#include <thread>

#include <condition_variable>

#include "absl/time/time.h"
#include "server/base/mutex.h"

namespace limpid {

// Make one before any other thread starts: threads inherit that both signals
// are blocked, so that only this object's own thread takes them. The first
// signal is kept for whoever waits, the second leaves the process at once with
// status 128 + its number. Also ignores SIGPIPE. Lives until the process ends.
class ShutdownSignal {
 public:
  ShutdownSignal();
  ShutdownSignal(const ShutdownSignal&) = delete;
  ShutdownSignal& operator=(const ShutdownSignal&) = delete;

  // Something that a waiter waits for beside the signal has happened.
  void Wake();

  // Waits for a signal, or for Wake since the last return; whether it was a
  // signal.
  bool Wait();

  // Leaves the process with `status` unless it has ended by itself until then.
  void ExitAt(absl::Time limit, int status);

 private:
  void Take();

  sigset_t signals_;
  Mutex mutex_;
  std::condition_variable changed_;
  bool signalled_ LIMPID_GUARDED_BY(mutex_) = false;
  bool woken_ LIMPID_GUARDED_BY(mutex_) = false;
};

}  // namespace limpid
