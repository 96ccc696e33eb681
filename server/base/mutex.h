// SPDX-License-Identifier: Apache-2.0
//
// A std::mutex that Clang's thread-safety analysis can follow. absl::Mutex is
// not used because ThreadSanitizer reports false races in Debian's build of it.
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define LIMPID_TSA(x) __attribute__((x))
#else
#define LIMPID_TSA(x)
#endif
#define LIMPID_GUARDED_BY(mutex) LIMPID_TSA(guarded_by(mutex))
#define LIMPID_REQUIRES(mutex) LIMPID_TSA(requires_capability(mutex))

namespace limpid {

class LIMPID_TSA(capability("mutex")) Mutex {
 public:
  void Lock() LIMPID_TSA(acquire_capability()) { mutex_.lock(); }
  void Unlock() LIMPID_TSA(release_capability()) { mutex_.unlock(); }

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

// Holds a Mutex while it lives; waits on a condition with it released.
class LIMPID_TSA(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) LIMPID_TSA(acquire_capability(mutex))
      : lock_(mutex.mutex_) {}
  ~MutexLock() LIMPID_TSA(release_capability()) {}

  void Wait(std::condition_variable& condition) { condition.wait(lock_); }
  // Waits at most until `limit`; false if that passed first.
  template <typename TimePoint>
  bool WaitUntil(std::condition_variable& condition, TimePoint limit) {
    return condition.wait_until(lock_, limit) == std::cv_status::no_timeout;
  }

 private:
  std::unique_lock<std::mutex> lock_;
};

}  // namespace limpid
