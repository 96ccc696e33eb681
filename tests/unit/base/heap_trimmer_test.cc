// SPDX-License-Identifier: Apache-2.0
#include "server/base/heap_trimmer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace limpid {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr size_t kSmall = 1000;
constexpr int64_t kNumSmall = 128 * kMiB / kSmall;

// Small objects of a thread's arena, all freed but the newest, which keeps the
// allocator from giving the rest back by itself.
std::unique_ptr<char[]> FreeManySmallObjects() {
  std::unique_ptr<char[]> newest;
  std::thread([&newest] {
    std::vector<std::unique_ptr<char[]>> objects;
    for (int64_t i = 0; i < kNumSmall; ++i) {
      objects.push_back(std::make_unique<char[]>(kSmall));
    }
    newest = std::move(objects.back());
  }).join();
  return newest;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kOwnAllocator = true;
#else
constexpr bool kOwnAllocator = false;
#endif

TEST(HeapTrimmerTest, GivesBackWhatIsFreedLater) {
  if (kOwnAllocator) GTEST_SKIP() << "the sanitizer's allocator has no trim";
  const int64_t before = AnonymousBytes();
  ASSERT_GT(before, 0);
  const HeapTrimmer trimmer({absl::Milliseconds(1), 16 * kMiB});
  // It may look while the objects are in use, and gain nothing.
  const auto newest = FreeManySmallObjects();
  const auto limit = Clock::now() + std::chrono::seconds(30);
  while (AnonymousBytes() - before > 32 * kMiB) {
    ASSERT_LT(Clock::now(), limit) << AnonymousBytes() - before;
    std::this_thread::yield();
  }
}

// Else the test above shows nothing.
TEST(HeapTrimmerTest, WithoutItTheMemoryStays) {
  if (kOwnAllocator) GTEST_SKIP() << "the sanitizer's allocator has no trim";
  const int64_t before = AnonymousBytes();
  const auto newest = FreeManySmallObjects();
  EXPECT_GT(AnonymousBytes() - before, 100 * kMiB);
}

TEST(HeapTrimmerTest, EndsWithoutWaitingForItsPeriod) {
  const auto begin = Clock::now();
  { const HeapTrimmer trimmer({absl::Hours(1), 0}); }
  EXPECT_LT(Clock::now() - begin, std::chrono::minutes(10));
}

}  // namespace
}  // namespace limpid
