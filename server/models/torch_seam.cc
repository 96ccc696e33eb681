// SPDX-License-Identifier: Apache-2.0
#include "server/models/torch_seam.h"

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>

#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

absl::Status OutOfMemory() {
  ErrorDetails details;
  details.reason = kOutOfMemory;
  details.retry_after = absl::Seconds(1);
  return MakeError(absl::StatusCode::kResourceExhausted,
                   "not enough memory for this request now", details);
}

absl::Status Failed(const char* what) {
  const std::string text = what;
  return MakeError(absl::StatusCode::kInternal, "ENGINE_FAILED",
                   absl::StrCat("the engine failed: ",
                                text.substr(0, text.find('\n'))));
}

}  // namespace

absl::Status CatchTorch(const std::function<absl::Status()>& work) {
  try {
    return work();
  } catch (const c10::OutOfMemoryError&) {
    return OutOfMemory();
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  } catch (const c10::Error& error) {
    // The CPU allocator reports exhaustion as a plain error.
    const std::string text = error.what_without_backtrace();
    if (text.find("DefaultCPUAllocator: can't allocate memory") !=
        std::string::npos) {
      return OutOfMemory();
    }
    return Failed(text.c_str());
  } catch (const std::exception& error) {
    return Failed(error.what());
  } catch (...) {
    return Failed("unknown exception");
  }
}

}  // namespace limpid
