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

absl::Status CancelToken::Check() const {
  if (cancelled()) {
    return MakeError(absl::StatusCode::kCancelled, "CANCELLED",
                     "the request was cancelled");
  }
  if (deadline_ != absl::InfiniteFuture() && clock_->Now() >= deadline_) {
    return MakeError(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                     "the deadline passed before the explanation was ready");
  }
  return absl::OkStatus();
}

}  // namespace limpid
