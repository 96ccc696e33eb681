// SPDX-License-Identifier: Apache-2.0
//
// The engine's n-th allocation fails, for every n: the request is refused, and
// the next one gets its explanation.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <atomic>
#include <iostream>
#include <new>

#include "server/explain/engine.h"
#include "tests/support/collecting_sink.h"

namespace limpid {
namespace {

// The CPU allocator, which fails once when a countdown ends: as LibTorch itself
// does, or as the language does.
class FailingAllocator final : public c10::Allocator {
 public:
  FailingAllocator() : real_(c10::GetCPUAllocator()) {
    c10::SetCPUAllocator(this, /*priority=*/255);
  }
  ~FailingAllocator() override { c10::SetCPUAllocator(real_, 255); }

  // The n-th allocation from here fails; 0: none does.
  void FailAt(int64_t n) { left_ = n; }
  bool has_failed() const { return left_ == 0; }

  c10::DataPtr allocate(size_t bytes) override {
    if (left_ > 0 && --left_ == 0) {
      if (++num_failures_ % 2 == 0) throw std::bad_alloc();
      TORCH_CHECK(false,
                  "DefaultCPUAllocator: can't allocate memory: you "
                  "tried to allocate ",
                  bytes, " bytes");
    }
    return real_->allocate(bytes);
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return real_->raw_deleter();
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    real_->copy_data(to, from, bytes);
  }

 private:
  c10::Allocator* const real_;
  std::atomic<int64_t> left_{0};
  int num_failures_ = 0;
};

class OutOfMemoryTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    EngineOptions options;
    options.device = "cpu";
    engine_ = *Engine::Create(options);
  }
  absl::StatusOr<std::shared_ptr<const Model>> Load() {
    return engine_->Load("recall-mamba",
                         LIMPID_SOURCE_DIR "/models/recall-mamba");
  }
  static void ExpectRefused(const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, "OUT_OF_MEMORY");
    EXPECT_TRUE(GetErrorDetails(status).retry_after.has_value());
  }

  std::unique_ptr<Engine> engine_;
};

TEST_P(OutOfMemoryTest, EveryAllocationOfARunMayFail) {
  const auto model = Load();
  ASSERT_TRUE(model.ok()) << model.status();
  ExplainRequest request;
  request.method = GetParam();
  request.input = TokenInput{{1, 2, 3, 4, 5, 6}};
  const auto plan = engine_->MakePlan(request, *model);
  ASSERT_TRUE(plan.ok()) << plan.status();
  FailingAllocator allocator;
  int64_t n = 1;
  for (;; ++n) {
    allocator.FailAt(n);
    testing::CollectingSink sink;
    const absl::Status status = engine_->Run(**plan, sink, CancelToken());
    if (!allocator.has_failed()) {
      EXPECT_TRUE(status.ok()) << status;
      break;
    }
    ExpectRefused(status);
    if (HasFailure()) FAIL() << "at allocation " << n;
    // A sample of them, so that the test stays short.
    if (n % 16 == 0) {
      testing::CollectingSink again;
      EXPECT_TRUE(engine_->Run(**plan, again, CancelToken()).ok());
    }
  }
  allocator.FailAt(0);
  EXPECT_GT(n, 20);
  std::cout << "figure: " << n - 1 << " failing allocations of a run\n";
}
INSTANTIATE_TEST_SUITE_P(Methods, OutOfMemoryTest,
                         ::testing::Values("raw-attention",
                                           "input-x-gradient"));

using OutOfMemoryLoadTest = OutOfMemoryTest;
TEST_P(OutOfMemoryLoadTest, EveryAllocationOfALoadMayFail) {
  FailingAllocator allocator;
  int64_t n = 1;
  for (;; ++n) {
    allocator.FailAt(n);
    const auto model = Load();
    if (!allocator.has_failed()) {
      EXPECT_TRUE(model.ok()) << model.status();
      break;
    }
    ExpectRefused(model.status());
    if (HasFailure()) FAIL() << "at allocation " << n;
  }
  allocator.FailAt(0);
  EXPECT_GT(n, 20);
  std::cout << "figure: " << n - 1 << " failing allocations of a load\n";
}
INSTANTIATE_TEST_SUITE_P(Load, OutOfMemoryLoadTest,
                         ::testing::Values("raw-attention"));

}  // namespace
}  // namespace limpid
