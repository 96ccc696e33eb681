// SPDX-License-Identifier: Apache-2.0
//
// Products of many decays end in denormal numbers, and arithmetic with those
// is a hundred times slower on many processors. They mean nothing here.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace limpid::kernels::cpu {

// While one lives, the calling thread reads and writes denormals as 0 (on
// x86-64; elsewhere it does nothing). Restores what was set before.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : saved_(_mm_getcsr()) {
    constexpr unsigned kFlushToZero = 0x8000;
    constexpr unsigned kDenormalsAreZero = 0x0040;
    _mm_setcsr(saved_ | kFlushToZero | kDenormalsAreZero);
  }
  ~FlushDenormals() { _mm_setcsr(saved_); }
#else
  FlushDenormals() {}
  ~FlushDenormals() {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

#if defined(__SSE2__)

 private:
  unsigned saved_;
#endif
};

}  // namespace limpid::kernels::cpu
