// SPDX-License-Identifier: Apache-2.0
#include "server/base/after.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "absl/time/clock.h"

namespace limpid {
namespace {

TEST(AfterTest, ItIsDoneAtItsTime) {
  std::promise<absl::Time> done;
  const absl::Time when = absl::Now() + absl::Milliseconds(10);
  const After after(when, [&] { done.set_value(absl::Now()); });
  EXPECT_GE(done.get_future().get(), when);
}

TEST(AfterTest, ItCanBeCalledOff) {
  std::atomic<bool> done{false};
  {
    const After after(absl::Now() + absl::Hours(1), [&] { done = true; });
  }
  EXPECT_FALSE(done);
}

}  // namespace
}  // namespace limpid
