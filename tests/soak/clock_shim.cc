// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into the server: its wall clock is off by the seconds that the file
// LIMPID_CLOCK_OFFSET holds (a native int64), read anew at every look, so that
// a test can let it jump. The monotonic clock stays as it is, as in a machine
// whose clock is set.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

namespace {

const volatile int64_t* MapOffset() {
  static const int64_t kNoOffset = 0;
  const char* path = std::getenv("LIMPID_CLOCK_OFFSET");
  const int file = path == nullptr ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return &kNoOffset;
  void* map = mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  return map == MAP_FAILED ? &kNoOffset : static_cast<int64_t*>(map);
}

int64_t Offset() {
  static const volatile int64_t* const offset = MapOffset();
  return *offset;
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  using Function = int (*)(clockid_t, timespec*);
  static const auto real =
      reinterpret_cast<Function>(dlsym(RTLD_NEXT, "clock_gettime"));
  const int result = real(clock, time);
  if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += Offset();
  return result;
}

extern "C" int gettimeofday(timeval* __restrict time, void* zone) noexcept {
  using Function = int (*)(timeval*, void*);
  static const auto real =
      reinterpret_cast<Function>(dlsym(RTLD_NEXT, "gettimeofday"));
  const int result = real(time, zone);
  if (result == 0) time->tv_sec += Offset();
  return result;
}
