// SPDX-License-Identifier: Apache-2.0
//
// Time as the program sees it, so that tests can set it, and the token by which
// a request is told to stop.
#pragma once

#include <atomic>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/status.h"

namespace limpid {

// A source of time. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
  // The system's clock; lives for ever.
  static const Clock& Real();
};

// Tells the work of one request to stop: its caller is gone, its deadline has
// passed, or the server is shutting down. Copies share one state. Thread-safe;
// Check costs one atomic load and, with a deadline, a look at the clock.
class CancelToken {
 public:
  explicit CancelToken(absl::Time deadline = absl::InfiniteFuture(),
                       const Clock& clock = Clock::Real())
      : state_(std::make_shared<State>()),
        deadline_(deadline),
        clock_(&clock) {}

  void Cancel() { state_->cancelled.store(true, std::memory_order_relaxed); }
  bool cancelled() const {
    return state_->cancelled.load(std::memory_order_relaxed);
  }
  absl::Time deadline() const { return deadline_; }

  // Ok, CANCELLED or DEADLINE_EXCEEDED.
  absl::Status Check() const;

 private:
  struct State {
    std::atomic<bool> cancelled{false};
  };
  std::shared_ptr<State> state_;
  absl::Time deadline_;
  const Clock* clock_;
};

}  // namespace limpid
