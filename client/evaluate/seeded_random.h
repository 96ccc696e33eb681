// SPDX-License-Identifier: Apache-2.0
//
// Random numbers that are the same everywhere for the same seed: the standard
// library fixes its generators but not its distributions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace limpid::evaluate {

// A seed of its own for each list of names, for example of a row and an item.
uint64_t MixSeed(uint64_t seed, std::initializer_list<absl::string_view> names);

// Not thread-safe.
class SeededRandom {
 public:
  explicit SeededRandom(uint64_t seed) : engine_(seed) {}

  // Uniform in [0, 1), in steps of 2^-53.
  double Uniform();
  // Uniform in 0 .. limit - 1; limit is greater than 0.
  size_t Below(size_t limit);

  template <typename T>
  void Shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) {
      std::swap(values[i - 1], values[Below(i)]);
    }
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace limpid::evaluate
