// SPDX-License-Identifier: Apache-2.0
//
// What is expected of the ops that fold attention.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/ops.h"

namespace limpid::kernels {

inline constexpr ChannelFold kFolds[] = {
    ChannelFold::kSum,           ChannelFold::kSumAbs,
    ChannelFold::kSumPositive,   ChannelFold::kSumSquares,
    ChannelFold::kMax,           ChannelFold::kMin,
    ChannelFold::kWeightedSumAbs};

inline double StartOf(ChannelFold fold) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (fold == ChannelFold::kMax) return -kInfinity;
  if (fold == ChannelFold::kMin) return kInfinity;
  return 0;
}

// Folds and products of matrices that come channel by channel.
class ExpectedFolds {
 public:
  ExpectedFolds(ChannelFold fold, int64_t length, int64_t channels)
      : fold_(fold),
        length_(length),
        channels_(channels),
        matrix(length * length, StartOf(fold)),
        product(length * channels) {}

  // `entries` [L, L], lower triangular; `value` of position j is value[j
  // stride].
  void Add(int64_t channel, const std::vector<double>& entries,
           const double* weight, const double* value, int64_t stride) {
    EXPECT_TRUE(cpu::Run(FoldChannels<double>{fold_, 1, length_ * length_,
                                              entries.data(), weight + channel,
                                              matrix.data()})
                    .ok());
    for (int64_t i = 0; i < length_; ++i) {
      double sum = 0;
      for (int64_t j = 0; j <= i; ++j) {
        sum += entries[i * length_ + j] * value[j * stride + channel];
      }
      product[i * channels_ + channel] = sum;
    }
  }

 private:
  const ChannelFold fold_;
  const int64_t length_, channels_;

 public:
  std::vector<double> matrix;   // [L, L]
  std::vector<double> product;  // [L, D]
};

// |actual - expected| / |expected|, over all numbers.
template <typename T>
double RelativeError(const std::vector<T>& actual,
                     const std::vector<double>& expected) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(difference / std::max(size, 1e-60));
}

}  // namespace limpid::kernels
