// SPDX-License-Identifier: Apache-2.0
//
// Time as the program sees it, so that tests can set it, and the token by which
// a request is told to stop.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
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
// Check costs two atomic loads and, with a deadline, a look at the clock.
class CancelToken {
 public:
  explicit CancelToken(absl::Time deadline = absl::InfiniteFuture(),
                       const Clock& clock = Clock::Real())
      : state_(std::make_shared<State>(deadline)), clock_(&clock) {}

  void Cancel() { state_->cancelled.store(true, std::memory_order_relaxed); }
  bool cancelled() const {
    return state_->cancelled.load(std::memory_order_relaxed);
  }
  absl::Time deadline() const {
    const int64_t nanos =
        state_->deadline_nanos.load(std::memory_order_relaxed);
    return nanos == kNever ? absl::InfiniteFuture()
                           : absl::FromUnixNanos(nanos);
  }
  // Moves the deadline if `deadline` is later: somebody with more time wants
  // the same work.
  void ExtendTo(absl::Time deadline);

  // Ok, CANCELLED or DEADLINE_EXCEEDED.
  absl::Status Check() const;

 private:
  // What absl makes of the infinite future.
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  struct State {
    explicit State(absl::Time deadline)
        : deadline_nanos(absl::ToUnixNanos(deadline)) {}
    std::atomic<bool> cancelled{false};
    std::atomic<int64_t> deadline_nanos;
  };
  std::shared_ptr<State> state_;
  const Clock* clock_;
};

}  // namespace limpid
