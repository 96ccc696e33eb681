// SPDX-License-Identifier: Apache-2.0
//
// Random inputs for the kernel tests, in the precision under test and, with the
// very same values, in double precision for the reference; and how results are
// compared.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/ops.h"

namespace limpid::kernels {

// Largest difference allowed, as a part of the largest expected number.
template <typename T>
inline constexpr double kTolerance = sizeof(T) == 4 ? 3e-6 : 1e-13;

template <typename T>
std::vector<T> ConvertTo(const std::vector<double>& values) {
  return std::vector<T>(values.begin(), values.end());
}

// Numbers that are the same in T and in double.
template <typename T>
class Values {
 public:
  Values() = default;
  explicit Values(std::vector<double> values)
      : narrow_(ConvertTo<T>(values)), exact_(narrow_.begin(), narrow_.end()) {}
  static Values Random(int64_t size, double low, double high,
                       std::mt19937_64& generator) {
    std::uniform_real_distribution<double> distribution(low, high);
    std::vector<double> values(size);
    for (double& value : values) value = distribution(generator);
    return Values(std::move(values));
  }

  const T* data() const { return narrow_.data(); }
  const double* exact() const { return exact_.data(); }

 private:
  std::vector<T> narrow_;
  std::vector<double> exact_;
};

// Where packed sequences begin, and the end of the last: from one position to
// 257, and around the sizes that kernels cut positions into.
inline constexpr int64_t kBegins[] = {0, 1, 258, 266, 329, 393, 458, 460};
inline constexpr int64_t kPackedSequences = std::size(kBegins) - 1;
inline constexpr int64_t kPackedPositions = kBegins[kPackedSequences];

struct Sizes {
  int64_t positions = 1;
  int64_t channels = 1;
  int64_t states = 1;
  int64_t conv_width = 4;

  std::string ToString() const {
    return absl::StrCat("L=", positions, " D=", channels, " N=", states,
                        " K=", conv_width);
  }
};

// A frozen recurrence and what else its block has. Strides are wider than the
// rows, and what lies between is not a number.
template <typename T>
struct Inputs {
  explicit Inputs(const Sizes& sizes, double max_delta = 0.3,
                  double max_decay_rate = 8, uint64_t seed = 1)
      : sizes(sizes),
        stride(sizes.channels + 3),
        state_stride(sizes.states + 2) {
    std::mt19937_64 g(seed);
    const int64_t l = sizes.positions, d = sizes.channels, n = sizes.states;
    delta = Strided(l, d, stride, 0, max_delta, g);
    a = Values<T>::Random(d * n, -max_decay_rate, 0, g);
    b = Strided(l, n, state_stride, -1, 1, g);
    c = Strided(l, n, state_stride, -1, 1, g);
    skip = Values<T>::Random(d, -1, 1, g);
    u = Strided(l, d, stride, -1, 1, g);
    source = Strided(l, d, stride, 0, 1, g);
    row = Strided(l, d, stride, -1, 1, g);
    conv_weight = Values<T>::Random(d * sizes.conv_width, -1, 1, g);
    conv_bias = Values<T>::Random(d, -1, 1, g);
  }

  SelectiveSsm<T> Ssm() const { return MakeSsm<T>(&Values<T>::data); }
  SelectiveSsm<double> ExactSsm() const {
    return MakeSsm<double>(&Values<T>::exact);
  }

  // All channels, all rows, all factors; `out` is left to the caller.
  SsmAttention<T> Attention() const {
    return MakeAttention<T>(Ssm(), &Values<T>::data);
  }
  SsmAttention<double> ExactAttention() const {
    return MakeAttention<double>(ExactSsm(), &Values<T>::exact);
  }

  Sizes sizes;
  int64_t stride;
  int64_t state_stride;
  Values<T> delta, a, b, c, skip, u, source, row, conv_weight, conv_bias;

 private:
  static Values<T> Strided(int64_t rows, int64_t columns, int64_t stride,
                           double low, double high,
                           std::mt19937_64& generator) {
    std::uniform_real_distribution<double> distribution(low, high);
    std::vector<double> values(rows * stride, std::nan(""));
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        values[i * stride + j] = distribution(generator);
      }
    }
    return Values<T>(std::move(values));
  }

  template <typename U, typename Get>
  SelectiveSsm<U> MakeSsm(Get get) const {
    return {sizes.positions, sizes.channels, sizes.states, (delta.*get)(),
            stride,          (a.*get)(),     (b.*get)(),   state_stride,
            (c.*get)(),      state_stride,   (skip.*get)()};
  }
  template <typename U, typename Get>
  SsmAttention<U> MakeAttention(const SelectiveSsm<U>& ssm, Get get) const {
    SsmAttention<U> op;
    op.ssm = ssm;
    op.source_scale = (source.*get)();
    op.source_stride = stride;
    op.conv_weight = (conv_weight.*get)();
    op.conv_width = sizes.conv_width;
    op.row_scale = (row.*get)();
    op.row_stride = stride;
    op.channel_end = sizes.channels;
    op.row_end = sizes.positions;
    return op;
  }
};

// Whether `actual` is `expected` within `tolerance` of its largest number.
template <typename T>
testing::AssertionResult Near(const std::vector<T>& actual,
                              const std::vector<double>& expected,
                              double tolerance = kTolerance<T>) {
  if (actual.size() != expected.size()) {
    return testing::AssertionFailure() << "sizes differ";
  }
  double largest = 1e-30;
  for (const double x : expected) largest = std::max(largest, std::fabs(x));
  for (size_t i = 0; i < actual.size(); ++i) {
    // Not "greater": a NaN is no match.
    if (!(std::fabs(actual[i] - expected[i]) <= tolerance * largest)) {
      return testing::AssertionFailure()
             << "element " << i << " is " << actual[i] << ", not "
             << expected[i] << "; largest " << largest << ", tolerance "
             << tolerance;
    }
  }
  return testing::AssertionSuccess();
}

// Calls test() for every register width that this processor may use.
template <typename Test>
void ForEachSimdWidth(const Test& test) {
  for (const int bytes :
       {cpu::kNarrowBytes, cpu::kMiddleBytes, cpu::kWideBytes}) {
    SCOPED_TRACE(absl::StrCat("registers of ", bytes, " bytes"));
    cpu::max_simd_bytes = bytes;
    test();
  }
  cpu::max_simd_bytes = cpu::kWideBytes;
}

using Precisions = testing::Types<float, double>;
inline constexpr int64_t kLengths[] = {1, 2, 3, 4, 17, 64, 65, 257};

}  // namespace limpid::kernels
