// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/parallel.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace limpid::evaluate {

absl::Status ForEachInParallel(size_t count, int threads,
                               const std::function<absl::Status(size_t)>& turn,
                               const std::function<void(size_t)>& after_each) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  size_t done = 0;       // under mutex
  absl::Status failure;  // under mutex
  const auto work = [&] {
    for (size_t i = next++; i < count; i = next++) {
      const absl::Status status = turn(i);
      const std::lock_guard lock(mutex);
      if (!status.ok()) {
        failure.Update(status);
        next = count;
        return;
      }
      after_each(++done);
    }
  };
  const size_t wanted =
      std::min(count, static_cast<size_t>(std::max(threads, 1)));
  std::vector<std::thread> pool;
  for (size_t i = 0; i < wanted; ++i) pool.emplace_back(work);
  for (std::thread& thread : pool) thread.join();
  return failure;
}

}  // namespace limpid::evaluate
