// SPDX-License-Identifier: Apache-2.0
//
// Which seeds a simulation runs: 1 to its own number of schedules, or the one
// in the environment variable LIMPID_SEED, to replay a failure.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>

namespace limpid::testing {

using Random = std::mt19937_64;

// A whole number from `low` to `high`.
inline int64_t Pick(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

inline bool Chance(Random& random, double probability) {
  return std::bernoulli_distribution(probability)(random);
}

// Runs schedule(seed) until one fails; says which.
template <typename Schedule>
void ForEachSeed(int64_t num_schedules, const char* what, Schedule schedule) {
  int64_t first = 1, last = num_schedules;
  if (const char* seed = std::getenv("LIMPID_SEED")) {
    first = last = std::atoll(seed);
  }
  for (int64_t seed = first; seed <= last; ++seed) {
    schedule(static_cast<uint64_t>(seed));
    if (::testing::Test::HasFailure()) {
      FAIL() << "replay with LIMPID_SEED=" << seed;
    }
  }
  std::cout << "figure: " << last - first + 1 << " schedules of " << what
            << "\n";
}

}  // namespace limpid::testing
