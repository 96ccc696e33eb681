// SPDX-License-Identifier: Apache-2.0
//
// How the CPU kernels use wide registers. A kernel is a class with
//
//   template <int kBytes> static LIMPID_INLINE void Run(const Args& args);
//
// written as plain loops over Lanes<T, kBytes> neighbours, which the compiler
// turns into vector instructions. DispatchSimd() compiles it once for each
// instruction set and calls the widest one that this processor has. Everything
// on the way must be LIMPID_INLINE, or it would be compiled for the narrowest.
// float64 has the narrowest only: it is what results are compared with and is
// served to nobody, and every instruction set costs time to compile.
//
// This is done by hand and not by the target_clones attribute, because the
// widths are template arguments and ifunc resolvers do not go with sanitizers.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

#if defined(__GNUC__)
#define LIMPID_INLINE inline __attribute__((always_inline))
// Hints that stand before a loop. LIMPID_IVDEP: its iterations do not touch
// each other's memory. LIMPID_KEEP_LOOP: do not write it out before it is
// turned into vector instructions; g++ does so to short loops of few
// operations, and then finds no loop to turn. LIMPID_UNROLL: do write it out
// before the loops inside it are turned; that is what puts an array of sums
// into registers.
#if defined(__clang__)
#define LIMPID_IVDEP _Pragma("clang loop vectorize(enable)")
#define LIMPID_KEEP_LOOP
#define LIMPID_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LIMPID_IVDEP _Pragma("GCC ivdep")
#define LIMPID_KEEP_LOOP _Pragma("GCC unroll 1")
#define LIMPID_UNROLL _Pragma("GCC unroll 8")
#endif
#else
#define LIMPID_INLINE inline
#define LIMPID_IVDEP
#define LIMPID_KEEP_LOOP
#define LIMPID_UNROLL
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define LIMPID_X86_SIMD 1
#endif

namespace limpid::kernels::cpu {

inline constexpr int kNarrowBytes = 16;  // SSE2, NEON
inline constexpr int kMiddleBytes = 32;  // AVX2 and FMA
inline constexpr int kWideBytes = 64;    // AVX-512

// Elements of one register.
template <typename T, int kBytes>
inline constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));

// Channels that a kernel takes together: a register, or more if it is short,
// for the sake of independent instructions.
template <typename T, int kBytes>
inline constexpr int kChannelBlock =
    kLanes<T, kBytes> > 8 ? kLanes<T, kBytes> : 8;

// out = the first `count` of kWidth neighbours, then zeros; and back.
template <int kWidth, typename T>
LIMPID_INLINE void LoadLanes(const T* in, int count, T* __restrict out) {
  if (count == kWidth) {
    for (int w = 0; w < kWidth; ++w) out[w] = in[w];
  } else {
    for (int w = 0; w < kWidth; ++w) out[w] = w < count ? in[w] : T{0};
  }
}

template <int kWidth, typename T>
LIMPID_INLINE void StoreLanes(const T* in, int count, T* __restrict out) {
  if (count == kWidth) {
    for (int w = 0; w < kWidth; ++w) out[w] = in[w];
  } else {
    for (int w = 0; w < count; ++w) out[w] = in[w];
  }
}

// For tests: registers wider than this many bytes are not used.
inline std::atomic<int> max_simd_bytes{kWideBytes};

// Register width of this processor in bytes, within max_simd_bytes.
inline int SimdBytes() {
  int bytes = kNarrowBytes;
#ifdef LIMPID_X86_SIMD
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    bytes = kMiddleBytes;
    if (__builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
      bytes = kWideBytes;
    }
  }
#endif
  const int limit = max_simd_bytes.load(std::memory_order_relaxed);
  return bytes < limit ? bytes : limit;
}

#ifdef LIMPID_X86_SIMD
template <typename Kernel, typename Args>
__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"),
               noinline)) void
RunWide(const Args& args) {
  Kernel::template Run<kWideBytes>(args);
}
template <typename Kernel, typename Args>
__attribute__((target("avx2,fma"), noinline)) void RunMiddle(const Args& args) {
  Kernel::template Run<kMiddleBytes>(args);
}
#endif

template <typename T, typename Kernel, typename Args>
void DispatchSimd(const Args& args) {
#ifdef LIMPID_X86_SIMD
  if constexpr (std::is_same_v<T, float>) {
    const int bytes = SimdBytes();
    if (bytes >= kWideBytes) return RunWide<Kernel>(args);
    if (bytes >= kMiddleBytes) return RunMiddle<Kernel>(args);
  }
#endif
  Kernel::template Run<kNarrowBytes>(args);
}

}  // namespace limpid::kernels::cpu
