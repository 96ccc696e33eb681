// SPDX-License-Identifier: Apache-2.0
#include "server/models/side_by_side.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

namespace limpid {
namespace {

TEST(SideBySideTest, OneAfterTheOtherOnTheCpu) {
  std::vector<int> calls;
  SideBySide(
      at::zeros({1}), [&] { calls.push_back(1); }, [&] { calls.push_back(2); });
  EXPECT_EQ(calls, (std::vector<int>{1, 2}));
}

// Long work comes before, on either side and after it; what is allocated
// beside is freed while it is still used.
void ExpectOrder(const at::Device& device, int rounds) {
  const at::TensorOptions options =
      at::TensorOptions().device(device).dtype(at::kFloat);
  std::vector<at::Tensor> least, most;
  for (int round = 0; round < rounds; ++round) {
    at::Tensor x = at::zeros({1 << 20}, options);
    for (int i = 0; i < 30; ++i) x = x + round;
    at::Tensor beside, here;
    SideBySide(
        x,
        [&] {
          beside = x;
          for (int i = 0; i < 10; ++i) beside = beside + x;
        },
        [&] { here = x + 1; });
    for (int i = 0; i < 10; ++i) here = here + beside;
    least.push_back(here.min());
    most.push_back(here.max());
  }
  for (int round = 0; round < rounds; ++round) {
    // Of floats that hold these numbers as they are.
    const double x = 30.0 * round;
    EXPECT_EQ(least[round].item().toDouble(), x + 1 + 110 * x);
    EXPECT_EQ(most[round].item().toDouble(), x + 1 + 110 * x);
  }
}

TEST(SideBySideTest, WhatFollowsSeesBoth) { ExpectOrder(at::kCPU, 3); }

TEST(DeviceSideBySideTest, WhatFollowsSeesBoth) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  ExpectOrder(at::kCUDA, 200);
}

TEST(DeviceSideBySideTest, WhatWasBegunIsWaitedForIfSomethingThrows) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  at::Tensor x = at::ones({1 << 20}, at::kCUDA);
  at::Tensor beside = at::zeros({1 << 20}, at::kCUDA);
  EXPECT_THROW(SideBySide(
                   x,
                   [&] {
                     for (int i = 0; i < 100; ++i) beside.add_(x);
                   },
                   [] { throw std::runtime_error("here"); }),
               std::runtime_error);
  x.fill_(1000);
  EXPECT_EQ(beside.min().item().toDouble(), 100);
  EXPECT_EQ(beside.max().item().toDouble(), 100);
}

}  // namespace
}  // namespace limpid
