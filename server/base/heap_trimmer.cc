// SPDX-License-Identifier: Apache-2.0
#include "server/base/heap_trimmer.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace limpid {
namespace {

constexpr int kMaxPassed = 7;

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
      least_(AnonymousBytes()),
      left_by_last_(least_),
      periodic_(options.period, [this] { Look(); }) {}

void HeapTrimmer::Look() {
  const int64_t now = AnonymousBytes();
  least_ = std::min(least_, now);
  if (now - least_ < slack_bytes_) return;
  const bool grown = now - left_by_last_ >= slack_bytes_;
  if (!grown && num_passed_ < num_useless_) {
    ++num_passed_;
    return;
  }
  malloc_trim(0);
  left_by_last_ = AnonymousBytes();
  const bool useful = now - left_by_last_ >= slack_bytes_ / 4;
  num_useless_ = useful ? 0 : std::min(2 * num_useless_ + 1, kMaxPassed);
  num_passed_ = 0;
}

}  // namespace limpid
