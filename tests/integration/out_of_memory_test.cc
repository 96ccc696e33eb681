// SPDX-License-Identifier: Apache-2.0
//
// The engine's n-th allocation fails, for every n: the request is refused, and
// the next one gets its explanation. A batch that does not fit is split.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <iostream>
#include <limits>
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
  // From here on allocations of more bytes fail; returns the largest so far.
  int64_t FailAbove(int64_t bytes) {
    limit_ = bytes;
    return largest_.exchange(0);
  }

  c10::DataPtr allocate(size_t bytes) override {
    largest_ = std::max<int64_t>(largest_, static_cast<int64_t>(bytes));
    if (static_cast<int64_t>(bytes) > limit_ || (left_ > 0 && --left_ == 0)) {
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
  std::atomic<int64_t> limit_{std::numeric_limits<int64_t>::max()};
  std::atomic<int64_t> largest_{0};
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

// Requests that run as a batch, and how they ended.
class OutOfMemoryBatchTest : public OutOfMemoryTest {
 protected:
  struct Run {
    std::vector<testing::CollectingSink> sinks;
    std::vector<absl::Status> statuses;
  };
  void SetUp() override {
    OutOfMemoryTest::SetUp();
    const auto model = Load();
    ASSERT_TRUE(model.ok()) << model.status();
    for (const int64_t length : {40, 36, 38, 34, 39}) {
      ExplainRequest request;
      request.method = GetParam();
      request.input = TokenInput{std::vector<int64_t>(length, length % 16)};
      const auto plan = engine_->MakePlan(request, *model);
      ASSERT_TRUE(plan.ok()) << plan.status();
      plans_.push_back(*plan);
    }
  }
  Run RunBatch(bool restarts = true) {
    Run run;
    run.sinks.resize(plans_.size());
    run.statuses.resize(plans_.size(), absl::UnknownError("not told"));
    std::vector<BatchMember> members;
    for (size_t i = 0; i < plans_.size(); ++i) {
      run.sinks[i].restarts = restarts;
      members.push_back({plans_[i].get(), &run.sinks[i], CancelToken(),
                         [&run, i](const absl::Status& status) {
                           run.statuses[i] = status;
                         }});
    }
    engine_->RunBatch(members);
    return run;
  }
  void ExpectWhole(const Run& run, size_t i) {
    EXPECT_TRUE(run.statuses[i].ok()) << i << ": " << run.statuses[i];
    testing::CollectingSink alone;
    ASSERT_TRUE(engine_->Run(*plans_[i], alone, CancelToken()).ok());
    const auto expected = alone.Floats("attribution");
    const auto actual = run.sinks[i].Floats("attribution");
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t j = 0; j < actual.size(); ++j) {
      EXPECT_NEAR(actual[j], expected[j], 1e-5);
    }
    EXPECT_EQ(run.sinks[i].tensors.size(), alone.tensors.size());
  }

  std::vector<std::shared_ptr<const Plan>> plans_;
};

TEST_P(OutOfMemoryBatchTest, WhereverABatchFailsItIsRunAgain) {
  FailingAllocator allocator;
  int64_t n = 1;
  for (;; n += 7) {
    allocator.FailAt(n);
    const Run run = RunBatch();
    const bool failed = allocator.has_failed();
    allocator.FailAt(0);
    for (size_t i = 0; i < plans_.size(); ++i) {
      EXPECT_TRUE(run.statuses[i].ok()) << run.statuses[i];
      EXPECT_TRUE(run.sinks[i].summary.has_value());
    }
    if (n % 5 == 1) ExpectWhole(run, n % plans_.size());
    if (HasFailure()) FAIL() << "at allocation " << n;
    if (!failed) break;
  }
  EXPECT_GT(n, 100);
}

TEST_P(OutOfMemoryBatchTest, WhatFitsInHalvesOrAloneIsComputed) {
  FailingAllocator allocator;
  allocator.FailAbove(std::numeric_limits<int64_t>::max());
  RunBatch();
  const int64_t together =
      allocator.FailAbove(std::numeric_limits<int64_t>::max());
  int64_t alone = 0;
  std::vector<int64_t> each;
  for (const auto& plan : plans_) {
    testing::CollectingSink sink;
    ASSERT_TRUE(engine_->Run(*plan, sink, CancelToken()).ok());
    each.push_back(allocator.FailAbove(std::numeric_limits<int64_t>::max()));
    alone = std::max(alone, each.back());
  }
  ASSERT_GT(together, alone);
  for (const int64_t limit : {together - 1, (together + alone) / 2, alone}) {
    SCOPED_TRACE(limit);
    allocator.FailAbove(limit);
    const Run run = RunBatch();
    for (size_t i = 0; i < plans_.size(); ++i) ExpectWhole(run, i);
  }
  // Who does not fit alone is refused, whoever does is not.
  allocator.FailAbove(alone - 1);
  const Run run = RunBatch();
  for (size_t i = 0; i < plans_.size(); ++i) {
    if (each[i] < alone) {
      ExpectWhole(run, i);
    } else {
      ExpectRefused(run.statuses[i]);
    }
  }
  allocator.FailAbove(0);
  for (const absl::Status& status : RunBatch().statuses) ExpectRefused(status);
  allocator.FailAbove(std::numeric_limits<int64_t>::max());
}

TEST_P(OutOfMemoryBatchTest, WhatHasBeenSentIsNotSentAgain) {
  FailingAllocator allocator;
  allocator.FailAt(40);
  const Run run = RunBatch(/*restarts=*/false);
  int num_refused = 0;
  for (const absl::Status& status : run.statuses) {
    if (status.ok()) continue;
    ExpectRefused(status);
    ++num_refused;
  }
  EXPECT_TRUE(allocator.has_failed());
  EXPECT_GT(num_refused, 0);
}
INSTANTIATE_TEST_SUITE_P(Methods, OutOfMemoryBatchTest,
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
