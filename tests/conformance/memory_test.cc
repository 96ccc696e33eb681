// SPDX-License-Identifier: Apache-2.0
//
// For every listed architecture: what a run really holds never exceeds what it
// was admitted with.
#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/core/GradMode.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "server/attribution/gradient.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

using testing::TinyCase;

// Adds up what the calling thread's tensors take and give back.
class MemoryMeter final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t,
                         c10::Device) override {
    held_ += size;
    peak_ = std::max(peak_, held_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_; }

 private:
  int64_t held_ = 0;
  int64_t peak_ = 0;
};

template <typename Work>
int64_t PeakBytes(const Work& work) {
  const auto meter = std::make_shared<MemoryMeter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  work();
  return meter->peak();
}

class Ignore final : public AttentionSink {
 public:
  absl::Status OnSlab(const AttentionSlab&) override {
    return absl::OkStatus();
  }
};

class MemoryTest : public ::testing::TestWithParam<TinyCase> {};

TEST_P(MemoryTest, EstimatesAreUpperBounds) {
  const auto network = testing::MakeRandomNetwork(GetParam(), at::kFloat, 3);
  for (const int64_t length : testing::LengthsOf(*network, {65, 300})) {
    const at::Tensor e =
        network->Embed(testing::RandomInput(*network, 2, length, 1));
    const at::Tensor one = e.narrow(0, 0, 1);
    const int64_t forward = PeakBytes([&] {
      EXPECT_TRUE(network->Forward(one, {0}, nullptr, CancelToken()).ok());
    });
    EXPECT_LE(forward, network->ForwardBytes(1, length)) << length;
    const int64_t visit = PeakBytes([&] {
      EXPECT_TRUE(network
                      ->Forward(one, {0},
                                [&](int64_t, int64_t,
                                    const BlockAttention& attention) {
                                  const BlockMap map = attention.Map({});
                                  Ignore sink;
                                  return attention.Visit(
                                      {}, {0, length}, sink, CancelToken());
                                },
                                CancelToken())
                      .ok());
    });
    EXPECT_LE(visit, network->ForwardBytes(1, length) +
                         network->VisitBytes(length))
        << length;
    ResolvedTarget target;
    target.id = 1;
    const int64_t gradient = PeakBytes([&] {
      EXPECT_TRUE(
          GradientsOfTargets(*network, e, {{length - 1, length - 1, target}},
                             Differentiation::kFull,
                             /*by_block_outputs=*/false, CancelToken())
              .ok());
    });
    EXPECT_LE(gradient, network->GradientBytes(2, length)) << length;
    std::printf(
        "figure: %s, L = %d: forward %.0f %%, visit %.0f %%, gradient %.0f %% "
        "of the estimate\n",
        GetParam().name.c_str(), static_cast<int>(length),
        100.0 * forward / network->ForwardBytes(1, length),
        100.0 * visit /
            (network->ForwardBytes(1, length) + network->VisitBytes(length)),
        100.0 * gradient / network->GradientBytes(2, length));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Architectures, MemoryTest, ::testing::ValuesIn(testing::TinyCases()),
    [](const ::testing::TestParamInfo<TinyCase>& info) {
      return info.param.name;
    });

}  // namespace
}  // namespace limpid
