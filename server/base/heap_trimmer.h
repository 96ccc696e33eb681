// SPDX-License-Identifier: Apache-2.0
//
// Gives free memory back to the system. glibc's allocator keeps what threads
// have freed in arenas of their own: after a flood of small objects, such as
// the streams that a hostile peer opens and resets, hundreds of MiB that nobody
// uses.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "server/base/periodic.h"

namespace limpid {

// Bytes of the process that are resident and belong to no file; 0 where the
// system does not say.
int64_t AnonymousBytes();

// Trims the heap while the process holds more than `slack_bytes` that nobody
// uses above the least that it ever did. A trim gives back whole pages only,
// and what keeps a page may go at any time without a sign of it, so that it
// goes on, but ever more seldom while it gains nothing. Looks every `period`,
// on a thread of its own, from construction to destruction.
class HeapTrimmer {
 public:
  struct Options {
    absl::Duration period = absl::Milliseconds(250);
    int64_t slack_bytes = int64_t{16} << 20;
  };

  explicit HeapTrimmer(const Options& options);

 private:
  void Look();

  const int64_t slack_bytes_;
  // Of the thread alone once it runs.
  int64_t least_, left_by_last_;
  int num_useless_ = 0;  // looks to pass over after a trim that gained nothing
  int num_passed_ = 0;

  Periodic periodic_;  // ends first
};

}  // namespace limpid
