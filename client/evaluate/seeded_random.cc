// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/seeded_random.h"

namespace limpid::evaluate {

uint64_t MixSeed(uint64_t seed,
                 std::initializer_list<absl::string_view> names) {
  // FNV-1a with 64 bits; a zero byte ends each name.
  uint64_t hash = 0xcbf29ce484222325 ^ seed;
  const auto add = [&hash](unsigned char byte) {
    hash = (hash ^ byte) * 0x100000001b3;
  };
  for (absl::string_view name : names) {
    for (const char letter : name) add(static_cast<unsigned char>(letter));
    add(0);
  }
  return hash;
}

double SeededRandom::Uniform() {
  return static_cast<double>(engine_() >> 11) * 0x1p-53;
}

size_t SeededRandom::Below(size_t limit) {
  // Draws beyond the last whole multiple of the limit would favour low numbers.
  const uint64_t last = UINT64_MAX - UINT64_MAX % limit;
  uint64_t drawn = engine_();
  while (drawn >= last) drawn = engine_();
  return drawn % limit;
}

}  // namespace limpid::evaluate
