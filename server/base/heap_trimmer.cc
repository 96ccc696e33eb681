// SPDX-License-Identifier: Apache-2.0
#include "server/base/heap_trimmer.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace limpid {
namespace {

constexpr int kMaxPassed = 7;

// What the process holds and nobody uses, with a constant for stacks and what
// else is not of the allocator.
int64_t HeldBytes() {
  const struct mallinfo2 heap = mallinfo2();
  return AnonymousBytes() - static_cast<int64_t>(heap.uordblks + heap.hblkhd);
}

}  // namespace

int64_t AnonymousBytes() {
  std::FILE* const file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  long long resident = 0, shared = 0;  // pages
  const int found = std::fscanf(file, "%*d %lld %lld", &resident, &shared);
  std::fclose(file);
  return found == 2 ? (resident - shared) * sysconf(_SC_PAGESIZE) : 0;
}

HeapTrimmer::HeapTrimmer(const Options& options)
    : slack_bytes_(options.slack_bytes),
      least_(HeldBytes()),
      left_by_last_(least_),
      periodic_(options.period, [this] { Look(); }) {}

void HeapTrimmer::Look() {
  const int64_t now = HeldBytes();
  least_ = std::min(least_, now);
  if (now - least_ < slack_bytes_) return;
  const bool grown = now - left_by_last_ >= slack_bytes_;
  if (!grown && num_passed_ < num_useless_) {
    ++num_passed_;
    return;
  }
  malloc_trim(0);
  left_by_last_ = HeldBytes();
  const bool useful = now - left_by_last_ >= slack_bytes_ / 4;
  num_useless_ = useful ? 0 : std::min(2 * num_useless_ + 1, kMaxPassed);
  num_passed_ = 0;
}

}  // namespace limpid
