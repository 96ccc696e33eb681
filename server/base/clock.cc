// SPDX-License-Identifier: Apache-2.0
#include "server/base/clock.h"

namespace limpid {
namespace {

class RealClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

}  // namespace

const Clock& Clock::Real() {
  static const RealClock* const clock = new RealClock;
  return *clock;
}

void CancelToken::ExtendTo(absl::Time deadline) {
  const int64_t later = absl::ToUnixNanos(deadline);
  int64_t now = state_->deadline_nanos.load(std::memory_order_relaxed);
  while (now < later && !state_->deadline_nanos.compare_exchange_weak(
                            now, later, std::memory_order_relaxed)) {
  }
}

absl::Status CancelToken::Check() const {
  if (cancelled()) {
    return MakeError(absl::StatusCode::kCancelled, "CANCELLED",
                     "the request was cancelled");
  }
  const absl::Time limit = deadline();
  if (limit != absl::InfiniteFuture() && clock_->Now() >= limit) {
    return MakeError(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                     "the deadline passed before the explanation was ready");
  }
  return absl::OkStatus();
}

}  // namespace limpid
